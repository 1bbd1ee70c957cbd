-- Removes a customer. A foreign key refuses this while the customer has licenses.
-- :customer_id integer
delete from customers where customer_id = :customer_id;
