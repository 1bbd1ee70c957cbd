-- Licenses that match a filter and precede a position in the order of their ends: some more than :limit, among them those
-- that come next. Served by license_valid_until.
-- :from_number integer (Unix ms), :from_id, :open_id integer (license_id: the position among those without an end),
-- :from_ms, :until_ms integer (Unix ms: the ends that match the filter), :with_open integer (1: and those without),
-- :product_id integer (null: any), :filter text (a word of LicenseFilter), :now_ms, :soon_ms integer (Unix ms),
-- :limit integer
select license_id from (
    select l.license_id
    from licenses l indexed by license_valid_until
    where l.valid_until_ms = :from_number
      and l.license_id < :from_id
      and (:product_id is null or l.product_id = :product_id)
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
    from licenses l indexed by license_valid_until
    where l.valid_until_ms < :from_number
      and l.valid_until_ms between :from_ms and :until_ms
      and (:product_id is null or l.product_id = :product_id)
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1) and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end
    order by l.valid_until_ms desc, l.license_id desc
    limit :limit)
union all
select license_id from (
    select l.license_id
    from licenses l indexed by license_valid_until
    where :with_open
      and l.valid_until_ms is null
      and l.license_id < :open_id
      and (:product_id is null or l.product_id = :product_id)
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
