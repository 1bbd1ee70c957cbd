-- One plan, archived or not. Served by the primary key.
-- :plan_id integer
select plan_id, product_id, code, name, kind, device_limit, term_days, term_starts, features, updates_days,
       created_at_ms, archived_at_ms
from plans
where plan_id = :plan_id;
