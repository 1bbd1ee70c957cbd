-- How many trials of a product started on each of some days, and how many of them have a customer now; the latest day first,
-- without the days on which none started. Served by trial_started.
-- :product_id integer, :days text (a JSON array of the first moment of each day and that of the next, Unix ms)
select d.value ->> 0 as day_ms, count(*) as started, count(l.customer_id) as bought
from json_each(:days) d
join trials t on t.product_id = :product_id and t.started_at_ms >= d.value ->> 0 and t.started_at_ms < d.value ->> 1
join licenses l on l.license_id = t.license_id
group by day_ms
order by day_ms desc;
