-- Licenses of a product that match a search, newest first.
-- :product_id integer (null: any), :search text (empty: all), :key_part text (the same without hyphens, upper case),
-- :limit integer
-- scan ok: finding part of a word reads all rows, at most once per command or page
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms
from license_details l
where (:product_id is null or l.product_id = :product_id)
  and (:search = ''
       or (:key_part <> '' and instr(l.license_key, :key_part) > 0)
       or instr(folded(l.customer || ' ' || l.company || ' ' || l.note) || ' ' || spellings(coalesce(l.domain, '')), :search) > 0)
order by l.license_id desc
limit :limit;
