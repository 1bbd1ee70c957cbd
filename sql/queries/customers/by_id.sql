-- One customer, with the number of its licenses.
-- :customer_id integer
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       c.licenses
from customers c
where c.customer_id = :customer_id;
