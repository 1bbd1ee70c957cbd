-- Customers whose name, email, company or note contains a text, sorted by name, with their number of licenses;
-- erased ones only if they have any.
-- :search text (empty: all), :limit integer
-- scan ok: a substring search reads all rows; a shop has a few thousand customers
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from customers c
where (c.erased_at_ms is null or exists (select 1 from licenses l where l.customer_id = c.customer_id))
  and (:search = ''
       or instr(folded(c.name || ' ' || c.email || ' ' || c.company || ' ' || c.note), :search) > 0)
order by c.name collate nocase, c.customer_id
limit :limit;
