-- Whether any administrator has logged in from a browser. Served by the primary key.
-- :token_hash blob (SHA-256)
select count(*) from known_browsers where token_hash = :token_hash;
