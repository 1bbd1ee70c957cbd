-- The most recently added customers, for selection lists.
-- :limit integer
-- scan ok: by the primary key, up to the limit
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from customers c
order by c.customer_id desc
limit :limit;
