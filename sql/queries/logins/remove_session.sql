-- Deletes a login by its token. Served by the unique index on the token.
-- :token_hash blob (SHA-256)
delete from admin_sessions where token_hash = :token_hash;
