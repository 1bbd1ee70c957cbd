-- Every product, archived ones too, the first one first.
-- scan ok: a shop has a handful; once per page or command
select p.product_id, p.slug, c.client_name, p.created_at_ms, p.archived_at_ms
from products p join client_configs c on c.product_id = p.product_id
order by p.product_id;
