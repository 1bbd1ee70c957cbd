-- Sets the slug of a product that no administrator has reviewed yet. Served by the primary key.
-- :product_id integer, :slug text
update products set slug = :slug where product_id = :product_id;
