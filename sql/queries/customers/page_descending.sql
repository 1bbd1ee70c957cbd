-- A page of customers, of all or of those that a search found, with their number of licenses, sorted by a column, the
-- greatest value first; erased ones only if they have any licenses.
-- :found text (ids as a JSON array; null: all), :column text (a word of customers::CustomerColumn), :from_value text,
-- :from_id integer (the position that the page follows; null: the first page), :limit integer
-- scan ok: all are sorted
with sorted as (
    select c.customer_id,
           case :column
           when 'name' then sort_key(c.name)
           when 'company' then sort_key(c.company)
           when 'email' then sort_key(c.email)
           when 'licenses' then printf('%020d', (select count(*) from licenses l where l.customer_id = c.customer_id))
           end as value
    from customers c
    where (c.erased_at_ms is null or exists (select 1 from licenses l where l.customer_id = c.customer_id))
      and (:found is null or c.customer_id in (select value from json_each(:found)))
), page as materialized (
    select customer_id, value from sorted
    where :from_id is null or (value, customer_id) < (:from_value, :from_id)
    order by value desc, customer_id desc
    limit :limit
)
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       (select count(*) from licenses l where l.customer_id = c.customer_id) as licenses
from page cross join customers c on c.customer_id = page.customer_id
order by page.value desc, page.customer_id desc;
