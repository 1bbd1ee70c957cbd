-- Which product has an API key, current or rotated out. Served by the unique indexes on the keys.
-- :api_key text
select product_id from client_configs where api_key = :api_key
union all
select product_id from retired_api_keys where api_key = :api_key;
