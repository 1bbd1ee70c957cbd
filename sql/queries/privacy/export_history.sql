-- The sessions that ended on a license while it belonged to a customer, for the person; without their tokens. Several
-- sessions in one row have the device of the last one. Served by session_history_license.
-- :license_id, :customer_id integer
select h.session_id, h.hardware_id, h.machine_id, h.client_version, h.address, h.started_at_ms, h.last_heartbeat_at_ms,
       h.ended_at_ms, h.end_reason, h.sessions
from session_history h
where h.license_id = :license_id
  and :customer_id = coalesce(
      (select f.customer_id from former_owners f
       where f.license_id = h.license_id and f.until_ms >= h.ended_at_ms order by f.until_ms limit 1),
      (select l.customer_id from licenses l where l.license_id = h.license_id))
order by h.ended_at_ms, h.session_id;
