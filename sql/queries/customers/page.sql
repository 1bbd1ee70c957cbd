-- A page of customers, of all or of those that a search found, sorted by name, with their number of licenses; erased
-- ones only if they have any.
-- :found text (ids as a JSON array; null: all), :after_name text, :after_id integer (last row of the page before; null: first page),
-- :limit integer
-- scan ok: all are sorted
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from customers c
where (c.erased_at_ms is null or exists (select 1 from licenses l where l.customer_id = c.customer_id))
  and (:found is null or c.customer_id in (select value from json_each(:found)))
  and (:after_id is null
       or c.name > :after_name collate nocase
       or (c.name = :after_name collate nocase and c.customer_id > :after_id))
order by c.name collate nocase, c.customer_id
limit :limit;
