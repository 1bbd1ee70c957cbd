-- One license, whatever its state.
-- :license_id integer
select l.license_id, l.license_key, l.customer_id, c.name as customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.domain, l.note, l.created_at_ms
from licenses l join customers c on c.customer_id = l.customer_id
where l.license_id = :license_id;
