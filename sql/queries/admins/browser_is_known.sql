-- Whether anybody logged in from a browser before. By the primary key.
-- :token_hash blob (SHA-256)
select count(*) from known_browsers where token_hash = :token_hash;
