-- Licenses of a product, newest first, of all or of those that a search found.
-- :product_id integer (null: any), :found text (their ids as a JSON array; null: all), :limit integer
-- scan ok: by the primary key, once per command
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms
from license_details l
where (:product_id is null or l.product_id = :product_id)
  and (:found is null or l.license_id in (select value from json_each(:found)))
order by l.license_id desc
limit :limit;
