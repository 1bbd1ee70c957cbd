-- The newest licenses of a range that match a filter. Served by the primary key, those of one product by license_product.
-- :low, :high integer (license_id, both included),
-- :product_id integer (null: any), :filter text (a word of LicenseFilter), :now_ms, :soon_ms integer (Unix ms),
-- :limit integer
select license_id from (
    select l.license_id
    from licenses l
    where :product_id is null
      and l.license_id between :low and :high
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1) and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end
    order by l.license_id desc
    limit :limit)
union all
select license_id from (
    select l.license_id
    from licenses l indexed by license_product
    where l.product_id = :product_id
      and l.license_id between :low and :high
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1) and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end
    order by l.license_id desc
    limit :limit);
