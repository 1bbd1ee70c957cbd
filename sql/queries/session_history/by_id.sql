-- One ended session by its id.
-- :session_id integer
select h.session_id, l.license_id, l.product_id, l.license_key, l.customer_id, coalesce(c.name, '') as customer,
       h.hardware_id, h.machine_id, h.client_version, h.address, h.started_at_ms, h.last_heartbeat_at_ms,
       h.ended_at_ms, h.end_reason, h.sessions
from session_history h
join licenses l on l.license_id = h.license_id
left join customers c on c.customer_id = l.customer_id
where h.session_id = :session_id;
