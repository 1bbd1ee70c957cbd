-- Removes what tells the devices that tried a program before a customer bought it. Served by license_customer.
-- :customer_id integer
update trials set fingerprint_digest = null
where license_id in (select license_id from licenses where customer_id = :customer_id);
