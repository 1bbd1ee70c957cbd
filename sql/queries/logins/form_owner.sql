-- The administrator whose forms carry a CSRF token. Served by the primary key.
-- :token_hash blob (SHA-256 of the CSRF token)
select admin_id from form_tokens where token_hash = :token_hash;
