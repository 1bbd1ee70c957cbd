-- The API keys of every product that is not archived: the current ones, and those that were rotated out with the time until
-- which they are accepted. Few products are archived, so those are looked up once, and not each key's product.
-- scan ok: all of them are kept in memory, and read again after a change
select product_id, api_key, null as valid_until_ms
from client_configs
where product_id not in (select product_id from products where archived_at_ms is not null)
union all
select product_id, api_key, valid_until_ms
from retired_api_keys
where product_id not in (select product_id from products where archived_at_ms is not null);
