-- The oldest licenses of a range that are in use, without a device. Served by license_unused.
-- :low, :high integer (license_id, both included), :product_id integer (null: any), :now_ms integer (Unix ms), :limit integer
select license_id from (
    select l.license_id
    from licenses l indexed by license_unused
    where l.state = 'active' and l.taken = 0
      and l.license_id between :low and :high
      and (:product_id is null or l.product_id = :product_id)
      and coalesce(l.valid_until_ms >= :now_ms, 1)
    order by l.license_id asc
    limit :limit);
