-- All that a verification looks at, in one row: one license of a product by its normalised key, whatever its state, how many
-- of its slots are taken, its device with a fingerprint, and its session unless it has ended. No row if the key is unknown
-- or the product is archived. Served by license_product_key, in which the key of another product is looked up exactly as
-- one that does not exist.
-- :product_id integer, :license_key text (25 characters), :hardware_id text
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, '' as customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, '' as note,
       l.created_at_ms, l.taken,
       d.device_id, d.last_seen_at_ms,
       s.session_token, s.started_at_ms, s.last_heartbeat_at_ms, s.timeout_s
from license_details l
left join devices d on d.license_id = l.license_id and d.hardware_id = :hardware_id
left join active_sessions s on s.license_id = l.license_id
where l.product_id = :product_id and l.license_key = :license_key
  and exists (select 1 from products p where p.product_id = l.product_id and p.archived_at_ms is null);
