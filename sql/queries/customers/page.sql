-- A page of customers whose name, email, company or note contains a text, sorted by name, with their number of
-- licenses; erased ones only if they have any.
-- :search text (empty: all), :after_name text, :after_id integer (last row of the page before; null: first page),
-- :limit integer
-- scan ok: a substring search reads all rows; a shop has a few thousand customers
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from customers c
where (c.erased_at_ms is null or exists (select 1 from licenses l where l.customer_id = c.customer_id))
  and (:search = ''
       or instr(folded(c.name || ' ' || c.email || ' ' || c.company || ' ' || c.note), :search) > 0)
  and (:after_id is null
       or c.name > :after_name collate nocase
       or (c.name = :after_name collate nocase and c.customer_id > :after_id))
order by c.name collate nocase, c.customer_id
limit :limit;
