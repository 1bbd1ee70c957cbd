-- Customers, all or those that a search found, sorted by name, with their number of licenses; erased ones only if
-- they have any.
-- :found text (ids as a JSON array; null: all), :limit integer
-- scan ok: all are sorted
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       c.licenses
from customers c
where (c.erased_at_ms is null or c.licenses > 0)
  and (:found is null or c.customer_id in (select value from json_each(:found)))
order by c.name collate nocase, c.customer_id
limit :limit;
