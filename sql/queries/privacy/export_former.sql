-- The licenses that a customer gave away, for the person. Served by former_owner_customer.
-- :customer_id integer
select l.license_id, l.license_key, p.slug as product, max(f.until_ms) as owned_until_ms
from former_owners f
join licenses l on l.license_id = f.license_id
join products p on p.product_id = l.product_id
where f.customer_id = :customer_id and l.customer_id is not :customer_id
group by l.license_id
order by l.license_id;
