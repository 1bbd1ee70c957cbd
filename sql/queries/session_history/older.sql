-- Ended sessions that follow a position of the list, the latest end first, of many licenses or of all: each is looked
-- at until the page
-- is full. Served by session_history_ended.
-- :product_id integer (null: any), :key_part text (upper case, no hyphens; empty: any), :customers text (ids as a JSON
-- array;
-- null: any), :texts text (JSON array: the customer must contain each of them), :bound_ms integer (Unix ms), :at_ms,
-- :id integer (end and id of the session at the position),
-- :limit integer
select h.session_id, l.license_id, l.product_id, l.license_key, l.customer_id, coalesce(c.name, '') as customer,
       h.hardware_id, h.machine_id, h.client_version, h.address, h.started_at_ms, h.last_heartbeat_at_ms,
       h.ended_at_ms, h.end_reason, h.sessions
from session_history h
join licenses l on l.license_id = h.license_id
left join customers c on c.customer_id = l.customer_id
where h.ended_at_ms >= :bound_ms and h.ended_at_ms <= :at_ms and (h.ended_at_ms < :at_ms or h.session_id < :id)
  and (:product_id is null or l.product_id = :product_id)
  and (:key_part = '' or instr(l.license_key, :key_part) > 0)
  and (:customers is null or l.customer_id in (select value from json_each(:customers)))
  and not exists (select 1 from json_each(:texts) p
                  where instr(coalesce(indexed(c.name) || indexed(c.company) || indexed(c.email) || indexed(c.note), ''), p.value) = 0)
order by h.ended_at_ms desc, h.session_id desc
limit :limit;
