-- Removes the domains of the licenses of a customer. Served by license_customer.
-- :customer_id integer
update licenses
set domain = null, transfer_domain = null, transfer_until_ms = null, transfer_confirmed_at_ms = null
where customer_id = :customer_id;
