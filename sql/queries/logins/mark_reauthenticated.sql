-- Stores that a password or second factor was accepted again in a login. Served by the primary key.
-- :admin_session_id integer, :now_ms integer (Unix ms)
update admin_sessions set proved_at_ms = :now_ms, seen_at_ms = :now_ms where admin_session_id = :admin_session_id;
