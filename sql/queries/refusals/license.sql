-- The license with a key, of one product or of any. Served by the index of unique license_key.
-- :license_key text, :product_id integer (null: any)
select license_id, product_id from licenses
where license_key = :license_key and (:product_id is null or product_id = :product_id);
