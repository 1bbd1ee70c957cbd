-- The slug of a product, and whether it is not archived. Served by the primary key.
-- :product_id integer
select slug, archived_at_ms is null as in_use from products where product_id = :product_id;
