-- Replaces the API key of a product. Served by the primary key.
-- :product_id integer, :api_key text, :now_ms integer (Unix ms)
update client_configs set api_key = :api_key, updated_at_ms = :now_ms where product_id = :product_id;
