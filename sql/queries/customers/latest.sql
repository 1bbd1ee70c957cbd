-- The most recently added customers, for selection lists; without erased ones.
-- :limit integer
-- scan ok: by the primary key, up to the limit
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       c.licenses
from customers c
where c.erased_at_ms is null
order by c.customer_id desc
limit :limit;
