-- How many full licenses and trials expired in a span, without those that had been revoked before. Served by
-- license_expiry alone.
-- :product_id integer (null: any), :from_ms, :until_ms integer (Unix ms; included, excluded)
select coalesce(sum(kind = 'full'), 0) as full, coalesce(sum(kind = 'trial'), 0) as trials
from licenses indexed by license_expiry
where valid_until_ms >= :from_ms and valid_until_ms < :until_ms
  and (:product_id is null or product_id = :product_id)
  and (revoked_at_ms is null or revoked_at_ms > valid_until_ms);
