-- A customer leaves. Refused by the file while a license belongs to him.
-- :customer_id integer
delete from customers where customer_id = :customer_id;
