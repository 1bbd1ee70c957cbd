-- The domains of a license. Served by the primary key.
-- :license_id integer
select license_id, domain, transfer_domain, transfer_until_ms, transfer_confirmed_at_ms
from licenses
where license_id = :license_id;
