-- Stores the last heartbeat of a session and the timeout that applied to it.
-- :session_id integer, :at_ms integer (Unix ms), :timeout_s integer
update active_sessions set last_heartbeat_at_ms = :at_ms, timeout_s = :timeout_s where session_id = :session_id;
