-- How many sessions run.
-- :now_ms integer (Unix ms; 0: count all)
-- scan ok: once per scrape of the metrics and per page with the count, on a reader
select count(*)
from running_sessions s
where s.runs_until_ms > :now_ms;
