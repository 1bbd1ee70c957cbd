-- Sessions of one license that ended at or after :since_ms, the latest end first. Served by session_history_license.
-- :license_id integer, :since_ms integer (Unix ms), :limit integer
select h.session_id, l.license_id, l.product_id, l.license_key, l.customer_id, coalesce(c.name, '') as customer,
       h.hardware_id, h.machine_id, h.client_version, h.address, h.started_at_ms, h.last_heartbeat_at_ms,
       h.ended_at_ms, h.end_reason, h.sessions
from session_history h
join licenses l on l.license_id = h.license_id
left join customers c on c.customer_id = l.customer_id
where h.license_id = :license_id and h.ended_at_ms >= :since_ms
order by h.ended_at_ms desc
limit :limit;
