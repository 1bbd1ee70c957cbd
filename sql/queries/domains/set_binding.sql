-- Sets the domains of a license. Served by the primary key.
-- :license_id integer, :domain text or null, :transfer_domain text or null, :transfer_until_ms and :confirmed_at_ms integer (Unix ms) or null
update licenses
set domain = :domain, transfer_domain = :transfer_domain, transfer_until_ms = :transfer_until_ms,
    transfer_confirmed_at_ms = :confirmed_at_ms
where license_id = :license_id;
