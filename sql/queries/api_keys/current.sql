-- The current API key of a product, and the product's name. Served by the primary key.
-- :product_id integer
select client_name, api_key from client_configs where product_id = :product_id;
