-- The customers that were added last, to choose from.
-- :limit integer
-- scan ok: by the primary key, as far as the limit
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from customers c
order by c.customer_id desc
limit :limit;
