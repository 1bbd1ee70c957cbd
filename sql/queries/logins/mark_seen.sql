-- Stores that a login was used. Served by the primary key.
-- :admin_session_id integer, :now_ms integer (Unix ms)
update admin_sessions set seen_at_ms = :now_ms where admin_session_id = :admin_session_id;
