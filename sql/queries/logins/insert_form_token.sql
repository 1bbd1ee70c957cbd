-- Stores whose forms carry a CSRF token.
-- :token_hash blob (SHA-256 of the CSRF token), :admin_id integer, :now_ms integer (Unix ms)
insert into form_tokens (token_hash, admin_id, created_at_ms) values (:token_hash, :admin_id, :now_ms);
