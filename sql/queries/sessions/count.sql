-- How many sessions run.
-- :started_at_ms integer (Unix ms; start of the server), :now_ms integer (Unix ms; 0: count all)
-- scan ok: once per scrape of the metrics or page of the overview, on a reader
select count(*)
from active_sessions s
where max(s.last_heartbeat_at_ms, :started_at_ms) + s.timeout_s * 1000 > :now_ms;
