-- How many licenses were revoked in a span before they expired. Served by license_revoked alone.
-- :product_id integer (null: any), :from_ms, :until_ms integer (Unix ms; included, excluded)
select count(*) as count
from licenses indexed by license_revoked
where revoked_at_ms >= :from_ms and revoked_at_ms < :until_ms
  and (:product_id is null or product_id = :product_id)
  and (valid_until_ms is null or valid_until_ms >= revoked_at_ms);
