-- One product, archived or not. Served by the unique index on the slug.
-- :slug text
select p.product_id, p.slug, c.client_name, p.created_at_ms, p.archived_at_ms
from products p join client_configs c on c.product_id = p.product_id
where p.slug = :slug;
