-- One license, whatever its state.
-- :license_id integer
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms
from license_details l
where l.license_id = :license_id;
