-- How many of these rows match a filter. Served by the primary key.
-- :since_ms, :until_ms integer (Unix ms), :code text (empty: any), :product_id integer (null: any), :key_part text (upper
-- case, no hyphens; empty: any), :device, :customer text (JSON arrays: the row must contain each of them), :ids text (JSON array)
select count(*) from (
    select 1
    from json_each(:ids) i
    cross join refusals r on r.refusal_id = i.value
    left join licenses l on l.license_id = r.license_id
    left join customers c on c.customer_id = l.customer_id
    where r.at_ms between :since_ms and :until_ms
      and (:code = '' or r.code = :code)
      and (:product_id is null or r.product_id = :product_id)
      and (:key_part = '' or instr(l.license_key, :key_part) > 0)
      and not exists (select 1 from json_each(:device) p
                      where instr(indexed(r.machine_id) || indexed(r.hardware_id) || indexed_domain(r.domain), p.value) = 0)
      and not exists (select 1 from json_each(:customer) p
                      where instr(coalesce(indexed(c.name) || indexed(c.company) || indexed(c.email) || indexed(c.note), ''), p.value) = 0));
