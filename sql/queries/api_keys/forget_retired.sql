-- Deletes retired API keys of a product that are no longer valid. Served by retired_api_key_product.
-- :product_id integer, :now_ms integer (Unix ms)
delete from retired_api_keys where product_id = :product_id and valid_until_ms <= :now_ms;
