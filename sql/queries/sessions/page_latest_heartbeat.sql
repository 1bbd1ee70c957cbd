-- A page of the sessions that have not ended, the latest heartbeat first, of all or of those that a search found.
-- :product_id integer (null: any), :found text (ids as a JSON array; null: all), :search text (for what the index finds too
-- much of; empty: all), :key_part text (:search as part of a license key: upper case, no hyphens),
-- :at_ms, :id integer (stored heartbeat and id of the last session before
-- the page),
-- :limit integer
-- scan ok: an index of heartbeats would slow each of them down; what is shown is looked up for the page only, and what is
-- compared until the page is full
with in_order as materialized (
    select s.session_id, s.device_id, s.address
    -- Of equal heartbeats the newest session comes first: read so, none is sorted in before those that were read.
    from (select session_id, license_id, device_id, address, last_heartbeat_at_ms
          from active_sessions order by session_id desc limit -1) s
    where (s.last_heartbeat_at_ms, s.session_id) < (:at_ms, :id)
      and (:found is null or s.session_id in (select value from json_each(:found)))
      and (:product_id is null
           or exists (select 1 from licenses l where l.license_id = s.license_id and l.product_id = :product_id))
    order by s.last_heartbeat_at_ms desc, s.session_id desc
    limit iif(:search = '', :limit, -1)
), on_page as materialized (
    select s.session_id
    from in_order s
    where (:search = ''
           or exists (
               select 1 from devices d
               join licenses l on l.license_id = d.license_id
               left join customers c on c.customer_id = l.customer_id
               where d.device_id = s.device_id
                 and ((:key_part <> '' and instr(l.license_key, :key_part) > 0)
                      or instr(folded(coalesce(c.name || ' ' || c.company, '') || ' ' || d.machine_id || ' ' || d.hardware_id
                                      || ' ' || s.address), folded(:search)) > 0)))
    limit :limit
)
select s.session_id, s.session_token, l.license_id, l.product_id, l.license_key, l.customer_id,
       coalesce(c.name, '') as customer, d.hardware_id, d.machine_id, s.client_version, s.address, s.started_at_ms,
       s.last_heartbeat_at_ms, s.timeout_s,
       (select f.heartbeat_interval from client_configs f where f.product_id = l.product_id) as heartbeat_interval
from active_sessions s
join licenses l on l.license_id = s.license_id
left join customers c on c.customer_id = l.customer_id
join devices d on d.device_id = s.device_id
where s.session_id in (select session_id from on_page)
order by s.last_heartbeat_at_ms desc, s.session_id desc;
