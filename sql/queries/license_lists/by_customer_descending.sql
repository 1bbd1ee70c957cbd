-- Licenses that match a filter and precede a position in the order of their customers' names, those without a customer at one end: some more than :limit, among them those
-- that come next. Served by customer_name and license_customer.
-- :from_name text, :from_customer, :from_id integer, :unowned_id integer (license_id: the position among those without),
-- :product_id integer (null: any), :filter text (a word of LicenseFilter), :now_ms, :soon_ms integer (Unix ms),
-- :limit integer
select license_id from (
    select l.license_id
    from licenses l indexed by license_customer
    where l.customer_id is null
      and l.license_id < :unowned_id
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
    from licenses l indexed by license_customer
    where l.customer_id = :from_customer
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
    from customers c indexed by customer_name cross join licenses l indexed by license_customer on l.customer_id = c.customer_id
    where c.sort_name = :from_name
      and c.customer_id < :from_customer
      and (:product_id is null or l.product_id = :product_id)
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1) and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end
    order by c.customer_id desc, l.license_id desc
    limit :limit)
union all
select license_id from (
    select l.license_id
    from customers c indexed by customer_name cross join licenses l indexed by license_customer on l.customer_id = c.customer_id
    where c.sort_name < :from_name
      and (:product_id is null or l.product_id = :product_id)
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1) and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end
    order by c.sort_name desc, c.customer_id desc, l.license_id desc
    limit :limit);
