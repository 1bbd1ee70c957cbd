-- A page of the customers in whose words something occurs, by name, with the number of their licenses.
-- :search text (empty: all), :after_name text, :after_id integer (of the page before; null: the first), :limit integer
-- scan ok: a part of a word is found by reading all; a shop has some thousand customers
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from customers c
where (:search = ''
       or instr(folded(c.name || ' ' || c.email || ' ' || c.company || ' ' || c.note), :search) > 0)
  and (:after_id is null
       or c.name > :after_name collate nocase
       or (c.name = :after_name collate nocase and c.customer_id > :after_id))
order by c.name collate nocase, c.customer_id
limit :limit;
