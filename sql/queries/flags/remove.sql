-- Removes a feature flag. Served by the primary key.
-- :product_id integer, :name text
delete from feature_flags where product_id = :product_id and name = :name;
