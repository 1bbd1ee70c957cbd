-- A login ends. Served by the unique index of its token.
-- :token_hash blob (SHA-256)
delete from admin_sessions where token_hash = :token_hash;
