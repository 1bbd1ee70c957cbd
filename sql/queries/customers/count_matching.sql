-- How many customers a list shows; see customers/page_ascending. No more than :limit are counted.
-- :found text (ids as a JSON array; null: all), :limit integer
-- scan ok: up to the limit
select count(*) from (
    select 1 from customers c
    where (c.erased_at_ms is null or exists (select 1 from licenses l where l.customer_id = c.customer_id))
      and (:found is null or c.customer_id in (select value from json_each(:found)))
    limit :limit);
