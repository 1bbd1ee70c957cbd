-- How many rows match a filter. Of the latest :walked rows of the time only, and no more than :limit. Served by refusal_at.
-- :since_ms, :until_ms integer (Unix ms), :code text (empty: any), :product_id integer (null: any), :key_part text (upper
-- case, no hyphens; empty: any), :device, :customer text (JSON arrays: the row must contain each of them), :walked, :limit integer
-- Licenses and customers are looked up only if something is said about them.
-- scan ok: up to the limit
select count(*) from (
    select 1
    from (select * from refusals where at_ms between :since_ms and :until_ms order by at_ms desc limit :walked) r
    where r.at_ms between :since_ms and :until_ms
      and (:code = '' or r.code = :code)
      and (:product_id is null or r.product_id = :product_id)
      and (:key_part = ''
           or exists (select 1 from licenses l
                      where l.license_id = r.license_id and instr(l.license_key, :key_part) > 0))
      and not exists (select 1 from json_each(:device) p
                      where instr(indexed(r.machine_id) || indexed(r.hardware_id) || indexed_domain(r.domain), p.value) = 0)
      and (:customer = '[]'
           or exists (select 1
                      from licenses l cross join customers c on c.customer_id = l.customer_id
                      where l.license_id = r.license_id
                        and not exists (select 1 from json_each(:customer) p
                                        where instr(indexed(c.name) || indexed(c.company) || indexed(c.email) || indexed(c.note), p.value) = 0)))
    limit :limit);
