-- Licenses that match a filter and precede a position in the order of their keys: some more than :limit, among them those
-- that come next. Served by the index of the key, those of one product by license_product_key.
-- :from_value text (a key),
-- :product_id integer (null: any), :filter text (a word of LicenseFilter), :now_ms, :soon_ms integer (Unix ms),
-- :limit integer
select license_id from (
    select l.license_id
    from licenses l
    where :product_id is null
      and l.license_key < :from_value
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1) and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end
    order by l.license_key desc
    limit :limit)
union all
select license_id from (
    select l.license_id
    from licenses l indexed by license_product_key
    where l.product_id = :product_id
      and l.license_key < :from_value
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1) and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end
    order by l.license_key desc
    limit :limit);
