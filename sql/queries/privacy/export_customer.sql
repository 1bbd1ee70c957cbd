-- All about one customer, for the person. Served by the primary key.
-- :customer_id integer
select customer_id, name, email, company, note, created_at_ms, erased_at_ms
from customers where customer_id = :customer_id;
