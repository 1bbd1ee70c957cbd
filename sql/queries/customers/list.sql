-- Customers in whose words something occurs, by name, with the number of their licenses.
-- :search text (empty: all), :limit integer
-- scan ok: a part of a word is found by reading all; a shop has some thousand customers
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from customers c
where :search = ''
   or instr(folded(c.name || ' ' || c.email || ' ' || c.company || ' ' || c.note), :search) > 0
order by c.name collate nocase, c.customer_id
limit :limit;
