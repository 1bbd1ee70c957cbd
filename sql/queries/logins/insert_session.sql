-- Adds a login.
-- :admin_id integer, :token_hash blob (SHA-256), :stage text, :address text, :browser text, :now_ms integer (Unix ms)
insert into admin_sessions (token_hash, admin_id, stage, address, browser, created_at_ms, seen_at_ms, proved_at_ms)
values (:token_hash, :admin_id, :stage, :address, :browser, :now_ms, :now_ms, :now_ms);
