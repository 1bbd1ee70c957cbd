-- The plans of a product, the first one first, with the number of licenses that were issued by each.
-- Served by the unique index on product and plan; the licenses are counted in license_plan.
-- :product_id integer, :filter text (a word of plans::PlanFilter), :limit integer
select p.plan_id, p.product_id, p.code, p.name, p.kind, p.device_limit, p.term_days, p.term_starts, p.features,
       p.updates_days, p.created_at_ms, p.archived_at_ms,
       (select count(*) from licenses l where l.plan_id = p.plan_id) as licenses
from plans p
where p.product_id = :product_id
  and case :filter
      when 'all' then 1
      when 'for_sale' then p.archived_at_ms is null
      when 'archived' then p.archived_at_ms is not null
      end
order by p.plan_id
limit :limit;
