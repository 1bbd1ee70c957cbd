-- One plan of a product, archived or not. Served by the unique index on product and code.
-- :product_id integer, :code text
select plan_id, product_id, code, name, kind, device_limit, term_days, term_starts, features, updates_days,
       created_at_ms, archived_at_ms
from plans
where product_id = :product_id and code = :code;
