-- Whether there is such a customer.
-- :customer_id integer
select 1 from customers where customer_id = :customer_id;
