-- How many customers lists show: erased ones only with licenses.
-- scan ok: a shop has a few thousand customers
select count(*) from customers c
where c.erased_at_ms is null or exists (select 1 from licenses l where l.customer_id = c.customer_id);
