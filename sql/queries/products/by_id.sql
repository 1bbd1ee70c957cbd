-- One product. Served by the primary key.
-- :product_id integer
select p.product_id, p.slug, c.client_name, p.created_at_ms, p.archived_at_ms
from products p join client_configs c on c.product_id = p.product_id
where p.product_id = :product_id;
