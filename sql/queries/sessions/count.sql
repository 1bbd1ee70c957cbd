-- How many sessions run.
-- :product_id integer (null: any), :runs_past_ms integer (Unix ms; 0: count all)
-- scan ok: once per scrape of the metrics and per page with the count, on a reader
select count(*)
from running_sessions s
where s.runs_until_ms > :runs_past_ms
  and (:product_id is null
       or exists (select 1 from licenses l where l.license_id = s.license_id and l.product_id = :product_id));
