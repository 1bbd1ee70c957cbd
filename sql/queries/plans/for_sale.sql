-- The plans of a product that may be sold, by name, for forms. Served by the unique index on product and plan.
-- :product_id integer, :limit integer
select plan_id, product_id, code, name, kind, device_limit, term_days, term_starts, features, updates_days,
       created_at_ms, archived_at_ms
from plans
where product_id = :product_id and archived_at_ms is null
order by folded(name), plan_id
limit :limit;
