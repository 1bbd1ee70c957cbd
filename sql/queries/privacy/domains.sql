-- The domains to which licenses of a customer are bound or are being transferred. Served by license_customer.
-- :customer_id integer
select domain from licenses where customer_id = :customer_id and domain is not null
union
select transfer_domain from licenses where customer_id = :customer_id and transfer_domain is not null;
