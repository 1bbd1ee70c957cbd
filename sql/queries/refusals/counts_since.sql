-- How often programs were refused since a moment, by product (0: not known) and code. Served by the primary key, product by
-- product.
-- :since_ms integer (Unix ms)
select product_id, code, sum(count) as count
from activity_counts
where kind = 'refusal' and product_id in (select 0 union all select product_id from products) and at_ms >= :since_ms
group by product_id, code;
