-- One session that has not ended, by its id, for administrators.
-- :session_id integer
select s.session_id, l.license_id, l.product_id, l.license_key, l.customer_id, coalesce(c.name, '') as customer,
       d.hardware_id, d.machine_id, s.client_version, s.address, s.started_at_ms, s.last_heartbeat_at_ms
from active_sessions s
join licenses l on l.license_id = s.license_id
left join customers c on c.customer_id = l.customer_id
join devices d on d.device_id = s.device_id
where s.session_id = :session_id;
