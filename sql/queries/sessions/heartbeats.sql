-- The stored heartbeat of every running session, to be compared with the heartbeats in memory.
-- scan ok: once per page with the list or the chart, on a reader; some milliseconds for ten thousand rows
select session_token, started_at_ms, last_heartbeat_at_ms, timeout_s from active_sessions;
