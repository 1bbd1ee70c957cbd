-- Deletes counts of sessions that no figure shows any more. Served by the primary key, product by product.
-- :before_ms integer (Unix ms)
delete from session_counts
where product_id in (select 0 union all select product_id from products) and at_ms < :before_ms;
