-- The stored heartbeat of every session that is not in the history yet; memory may have a later one.
-- :product_id integer (null: any)
-- scan ok: once per page with the list or the chart, on a reader; a few milliseconds for ten thousand rows
select s.session_token, s.started_at_ms, s.last_heartbeat_at_ms, s.timeout_s
from active_sessions s
where :product_id is null
   or exists (select 1 from licenses l where l.license_id = s.license_id and l.product_id = :product_id);
