-- Of these rows those beyond a position in time, the nearest first. Served by the primary key.
-- :direction integer (1: later ones; -1: earlier ones), :bound_ms, :at_ms integer (Unix ms; the last moment; :at_ms with :id
-- is the position), :id integer, :code text (empty: any), :product_id integer (null: any), :key_part text (upper case, no
-- hyphens; empty: any), :device, :customer text (JSON arrays: the row must contain each of them), :ids text (JSON array),
-- :limit integer
select r.refusal_id, r.at_ms, r.last_at_ms, r.calls, r.code, r.call, r.product_id, r.license_id, l.license_key,
       l.customer_id, coalesce(c.name, '') as customer, r.masked_key, r.hardware_id, r.machine_id, r.client_version,
       r.domain, r.address, r.detail
from json_each(:ids) i
cross join refusals r on r.refusal_id = i.value
left join licenses l on l.license_id = r.license_id
left join customers c on c.customer_id = l.customer_id
where iif(:direction = 1,
          r.at_ms <= :bound_ms and (r.at_ms, r.refusal_id) > (:at_ms, :id),
          r.at_ms >= :bound_ms and (r.at_ms, r.refusal_id) < (:at_ms, :id))
  and (:code = '' or r.code = :code)
  and (:product_id is null or r.product_id = :product_id)
  and (:key_part = '' or instr(l.license_key, :key_part) > 0)
  and not exists (select 1 from json_each(:device) p
                  where instr(indexed(r.machine_id) || indexed(r.hardware_id) || indexed_domain(r.domain), p.value) = 0)
  and not exists (select 1 from json_each(:customer) p
                  where instr(coalesce(indexed(c.name) || indexed(c.company) || indexed(c.email) || indexed(c.note), ''), p.value) = 0)
order by r.at_ms * :direction, r.refusal_id * :direction
limit :limit;
