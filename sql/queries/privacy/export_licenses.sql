-- All about the licenses of a customer, for the person. Served by license_customer.
-- :customer_id integer
select l.license_id, l.license_key, p.slug as product, n.code as plan, l.kind, l.state, l.device_limit, l.features,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.updates_until_ms, l.domain, l.transfer_domain,
       l.transfer_until_ms, l.transfer_confirmed_at_ms, l.note, l.created_at_ms, t.started_at_ms as trial_started_at_ms
from licenses l
join products p on p.product_id = l.product_id
left join plans n on n.plan_id = l.plan_id
left join trials t on t.license_id = l.license_id
where l.customer_id = :customer_id
order by l.license_id;
