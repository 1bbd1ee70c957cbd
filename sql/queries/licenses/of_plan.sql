-- Licenses that were issued by a plan and are not revoked, by id, with their taken slots. Served by license_plan.
-- :plan_id, :after integer (license_id), :more_than integer (taken slots) or null (any), :limit integer
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms, l.company,
       l.taken,
       null as session_id
from license_details l
where l.plan_id = :plan_id and l.license_id > :after and l.state <> 'revoked'
  and (:more_than is null or l.taken > :more_than)
order by l.license_id
limit :limit;
