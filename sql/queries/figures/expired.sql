-- How many licenses expired in a span, by kind, without those that had been revoked before. Served by license_expiry alone.
-- :product_id integer (null: any), :from_ms, :until_ms integer (Unix ms; included, excluded)
select kind, count(*) as count
from licenses indexed by license_expiry
where valid_until_ms >= :from_ms and valid_until_ms < :until_ms
  and (:product_id is null or product_id = :product_id)
  and (revoked_at_ms is null or revoked_at_ms > valid_until_ms)
group by kind;
