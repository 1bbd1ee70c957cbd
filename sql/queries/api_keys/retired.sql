-- API keys of a product that were rotated out, expired ones too. Served by retired_api_key_product;
-- each rotation deletes the expired ones.
-- :product_id integer
select api_key, valid_until_ms
from retired_api_keys
where product_id = :product_id
order by valid_until_ms desc
limit 100;
