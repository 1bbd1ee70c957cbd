-- Some customers with their number of licenses, as a page of a list that is sorted by a column, the
-- smallest value first; erased ones only if they have any licenses.
-- :found text (ids as a JSON array), :column text (a word of customers::CustomerColumn), :from_value text,
-- :from_id integer (the position that the page follows; null: the first page), :limit integer
-- scan ok: of the rows of the page
with sorted as (
    select c.customer_id,
           case :column
           when 'name' then c.sort_name
           when 'company' then c.sort_company
           when 'email' then c.sort_email
           when 'licenses' then printf('%020d', c.licenses)
           end as value
    from customers c
    where c.customer_id in (select value from json_each(:found))
      and (c.erased_at_ms is null or c.licenses > 0)
), page as materialized (
    select customer_id, value from sorted
    where :from_id is null or (value, customer_id) > (:from_value, :from_id)
    order by value, customer_id
    limit :limit
)
select c.customer_id, c.name, c.email, c.company, c.note, c.created_at_ms, c.erased_at_ms,
       c.licenses
from page cross join customers c on c.customer_id = page.customer_id
order by page.value, page.customer_id;
