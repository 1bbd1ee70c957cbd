-- A page of the sessions that have not ended, the earliest heartbeat first, that match a search in license key,
-- customer, company, device or address.
-- :product_id integer (null: any), :search text (empty: all), :key_part text (:search as part of a license key: upper
-- case, no hyphens), :at_ms, :id integer (stored heartbeat and id of the last session before the page), :limit integer
-- scan ok: a search for part of a text reads all rows; a shop has a few thousand running sessions
select s.session_id, s.session_token, l.license_id, l.product_id, l.license_key, l.customer_id,
       coalesce(c.name, '') as customer, d.hardware_id, d.machine_id, s.client_version, s.address, s.started_at_ms,
       s.last_heartbeat_at_ms, s.timeout_s,
       (select f.heartbeat_interval from client_configs f where f.product_id = l.product_id) as heartbeat_interval
from active_sessions s
join licenses l on l.license_id = s.license_id
left join customers c on c.customer_id = l.customer_id
join devices d on d.device_id = s.device_id
where (s.last_heartbeat_at_ms, s.session_id) > (:at_ms, :id)
  and (:product_id is null or l.product_id = :product_id)
  and (:search = ''
       or (:key_part <> '' and instr(l.license_key, :key_part) > 0)
       or instr(folded(coalesce(c.name || ' ' || c.company, '') || ' ' || d.machine_id || ' ' || d.hardware_id || ' ' || s.address),
                folded(:search)) > 0)
order by s.last_heartbeat_at_ms, s.session_id
limit :limit;
