-- One license by its normalised key, whatever its state. Served by the index of the key.
-- :license_key text (25 characters)
select l.license_id, l.license_key, l.customer_id, c.name as customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.domain, l.note, l.created_at_ms
from licenses l join customers c on c.customer_id = l.customer_id
where l.license_key = :license_key;
