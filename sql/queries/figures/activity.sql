-- How often something happened in a span, by code. Served by the primary key, product by product.
-- :kind text, :product_id integer (null: any), :from_ms, :until_ms integer (Unix ms; included, excluded)
select code, sum(count) as count
from activity_counts
where kind = :kind
  and product_id in (select 0 where :product_id is null
                     union all
                     select product_id from products where :product_id is null or product_id = :product_id)
  and at_ms >= :from_ms and at_ms < :until_ms
group by code;
