-- How many releases a product has. Served by the unique index on product and version.
-- :product_id integer
select count(*) from releases where product_id = :product_id;
