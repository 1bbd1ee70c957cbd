-- The newest licenses of some customers. Served by license_customer.
-- :customers text (ids as a JSON array), :product_id integer (null: any), :limit integer
select l.license_id
from licenses l
where l.customer_id in (select value from json_each(:customers))
  and (:product_id is null or l.product_id = :product_id)
order by l.license_id desc
limit :limit;
