-- The license and the device of a session of a product, whether it runs or has ended. Served by the indexes on session_token.
-- :session_token blob, :product_id integer
select s.license_id, d.hardware_id, d.machine_id, s.client_version
from active_sessions s
join devices d on d.device_id = s.device_id
join licenses l on l.license_id = s.license_id
where s.session_token = :session_token and l.product_id = :product_id
union all
select h.license_id, h.hardware_id, h.machine_id, h.client_version
from session_history h
join licenses l on l.license_id = h.license_id
where h.session_token = :session_token and l.product_id = :product_id
limit 1;
