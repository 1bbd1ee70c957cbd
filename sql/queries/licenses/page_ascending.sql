-- Some licenses as rows of a list that is sorted by a column, the smallest value first. What is shown of them is read only
-- for the page.
-- :found text (ids as a JSON array), :column text (one of listing::COLUMNS), :from_value text, :from_id integer (the position
-- that the page follows; null: the first page); the others as in licenses/found_before
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms, l.company,
       l.taken,
       (select s.session_id from running_sessions s
        where s.license_id = l.license_id
          and s.runs_until_ms > :now_ms) as session_id
from license_details l
where l.license_id in (
    select s.license_id
    from (select l.license_id, case :column
           when 'customer' then iif(l.customer_id is null, '', l.sort_name || char(1) || printf('%020d', l.customer_id))
           when 'key' then l.license_key
           when 'devices' then printf('%020d', l.taken)
           when 'valid_until' then printf('%020d', coalesce(l.valid_until_ms, 9223372036854775807))
           end as value
          from license_details l
    where l.license_id in (select value from json_each(:found))
      and (:product_id is null or l.product_id = :product_id)
      and (:customer_id is null or l.customer_id = :customer_id)
      and l.license_id between :low and :high
      and case :filter
          when 'all' then 1
          when 'active' then l.state = 'active' and l.valid_from_ms <= :now_ms
                             and coalesce(l.valid_until_ms >= :now_ms, 1)
          when 'expiring' then l.state = 'active' and l.customer_id is not null
                               and l.valid_until_ms between :now_ms and :soon_ms
          when 'unused' then l.state = 'active' and coalesce(l.valid_until_ms >= :now_ms, 1)
                             and l.taken = 0
          when 'stopped' then l.state <> 'active'
          when 'expired' then l.state = 'active' and l.valid_until_ms < :now_ms
          end) s
    where :from_id is null or (s.value, s.license_id) > (:from_value, :from_id)
    order by s.value, s.license_id
    limit :limit)
order by case :column
           when 'customer' then iif(l.customer_id is null, '', l.sort_name || char(1) || printf('%020d', l.customer_id))
           when 'key' then l.license_key
           when 'devices' then printf('%020d', l.taken)
           when 'valid_until' then printf('%020d', coalesce(l.valid_until_ms, 9223372036854775807))
           end, l.license_id;
