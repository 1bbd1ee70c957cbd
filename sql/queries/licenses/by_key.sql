-- One license of a product by its normalised key, whatever its state; none if the product is archived, also for a call that
-- was admitted just before. Served by license_product_key, in which the key of another product is looked up exactly as one
-- that does not exist.
-- :product_id integer, :license_key text (25 characters)
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms
from license_details l
where l.product_id = :product_id and l.license_key = :license_key
  and exists (select 1 from products p where p.product_id = l.product_id and p.archived_at_ms is null);
