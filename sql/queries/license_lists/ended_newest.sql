-- The newest licenses of a range that are neither suspended nor revoked and end in a span. Served by license_expiry alone.
-- :low, :high integer (license_id, both included), :product_id integer (null: any), :bought integer (1: only those of a
-- customer), :from_ms, :until_ms integer (Unix ms, both included), :limit integer
select license_id from (
    select l.license_id
    from licenses l indexed by license_expiry
    where l.valid_until_ms between :from_ms and :until_ms
      and l.state = 'active'
      and (:bought = 0 or l.customer_id is not null)
      and l.license_id between :low and :high
      and (:product_id is null or l.product_id = :product_id)
    order by l.license_id desc
    limit :limit);
