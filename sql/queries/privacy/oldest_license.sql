-- When the oldest license that a customer has or had was made; null if there is none. Served by license_customer and
-- former_owner_customer.
-- :customer_id integer
select min(created_at_ms) from licenses
where license_id in (select license_id from licenses where customer_id = :customer_id
                     union
                     select license_id from former_owners where customer_id = :customer_id);
