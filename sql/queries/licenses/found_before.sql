-- Some licenses, the newest first, as rows of a list.
-- :found text (their ids as a JSON array), :low, :high integer (license_id, both included), :product_id, :customer_id
-- integer (null: any), :filter text (a word of rules::Filter), :now_ms, :soon_ms integer (Unix ms), :limit integer
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms, l.company,
       l.taken,
       (select s.session_id from running_sessions s
        where s.license_id = l.license_id
          and s.runs_until_ms > :now_ms) as session_id
from license_details l
where l.license_id in (select value from json_each(:found))
  and l.license_id between :low and :high
  and (:product_id is null or l.product_id = :product_id)
  and (:customer_id is null or l.customer_id = :customer_id)
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
      end
order by l.license_id desc
limit :limit;
