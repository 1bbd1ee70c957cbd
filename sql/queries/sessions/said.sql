-- What the memory of the server needs to judge every session that runs.
-- scan ok: once a look at the list or the chart, on a reader; some milliseconds for ten thousand
select session_token, started_at_ms, last_heartbeat_at_ms, timeout_s from active_sessions;
