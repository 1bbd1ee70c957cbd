-- The stored heartbeat of every session that is not in the history yet; memory may have a later one.
-- scan ok: once per page with the list or the chart, on a reader; a few milliseconds for ten thousand rows
select session_token, started_at_ms, last_heartbeat_at_ms, timeout_s from active_sessions;
