-- Whether a license of a customer was given to another one. Served by former_owner_customer.
-- :customer_id integer
select exists (select 1 from former_owners where customer_id = :customer_id);
