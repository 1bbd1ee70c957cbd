-- How many rows match a filter. No more than :limit are counted. Served by refusal_at.
-- :since_ms, :until_ms integer (Unix ms), :code text (empty: any), :product_id integer (null: any), :key_part text (upper
-- case, no hyphens; empty: any), :customer, :device text (empty: any), :limit integer
-- scan ok: up to the limit
select count(*) from (
    select 1
    from refusals r
    left join licenses l on l.license_id = r.license_id
    left join customers c on c.customer_id = l.customer_id
    where r.at_ms between :since_ms and :until_ms
      and (:code = '' or r.code = :code)
      and (:product_id is null or r.product_id = :product_id)
      and (:device = '' or instr(folded(r.machine_id || ' ' || r.hardware_id), folded(:device)) > 0)
      and (:key_part = '' or instr(l.license_key, :key_part) > 0)
      and (:customer = '' or instr(folded(coalesce(c.name || ' ' || c.company, '')), folded(:customer)) > 0)
    limit :limit);
