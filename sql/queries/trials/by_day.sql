-- How many trials of a product started on each day (UTC) since a moment, and how many of them have a customer now; the
-- latest day first. Served by trial_started; a day is 86,400,000 ms.
-- :product_id integer, :since_ms integer (Unix ms)
select t.started_at_ms / 86400000 * 86400000 as day_ms, count(*) as started, count(l.customer_id) as bought
from trials t join licenses l on l.license_id = t.license_id
where t.product_id = :product_id and t.started_at_ms >= :since_ms
group by day_ms
order by day_ms desc;
