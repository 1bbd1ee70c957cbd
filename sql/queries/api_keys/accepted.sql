-- The API keys of every product that is not archived: the current ones, and those that were rotated out with the time until
-- which they are accepted.
-- scan ok: all of them are kept in memory, and read again after a change
select c.product_id, c.api_key, null as valid_until_ms
from client_configs c join products p on p.product_id = c.product_id
where p.archived_at_ms is null
union all
select r.product_id, r.api_key, r.valid_until_ms
from retired_api_keys r join products p on p.product_id = r.product_id
where p.archived_at_ms is null;
