-- The licenses of a customer. Served by license_customer.
-- :customer_id integer
select license_id from licenses where customer_id = :customer_id order by license_id;
