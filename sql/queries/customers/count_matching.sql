-- How many of some customers a list shows; see customers/page_ascending.
-- :found text (ids as a JSON array)
select count(*) from customers c
where c.customer_id in (select value from json_each(:found)) and (c.erased_at_ms is null or c.licenses > 0);
