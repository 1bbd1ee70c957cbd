-- Licenses of a product, at most :limit. Served by license_product.
-- :product_id, :limit integer
select license_id from licenses indexed by license_product where product_id = :product_id limit :limit;
