-- Licenses of some customers, at most :limit. Served by license_customer.
-- :customers text (ids as a JSON array), :product_id integer (null: any), :key_part text (upper case, no hyphens; empty: any),
-- :limit integer
select l.license_id
from json_each(:customers) f
cross join licenses l on l.customer_id = f.value
where (:product_id is null or l.product_id = :product_id)
  and (:key_part = '' or instr(l.license_key, :key_part) > 0)
limit :limit;
