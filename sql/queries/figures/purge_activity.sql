-- Deletes counts that no figure shows any more. Served by the primary key, kind by kind and product by product.
-- :before_ms integer (Unix ms)
delete from activity_counts
where kind in ('activation', 'license', 'refusal')
  and product_id in (select 0 union all select product_id from products) and at_ms < :before_ms;
