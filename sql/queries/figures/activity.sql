-- What was counted since a moment, quarter by quarter: the caller adds it up, which is quicker than sorting it by code here.
-- Served by the primary key, kind by kind and product by product.
-- :product_id integer (null: any), :since_ms integer (Unix ms)
select kind, at_ms, code, count
from activity_counts
where kind in ('activation', 'license', 'refusal')
  and product_id in (select 0 where :product_id is null
                     union all
                     select product_id from products where :product_id is null or product_id = :product_id)
  and at_ms >= :since_ms;
