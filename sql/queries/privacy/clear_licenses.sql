-- Removes the notes about the licenses of a customer. Served by license_customer.
-- :customer_id integer
update licenses set note = '' where customer_id = :customer_id;
