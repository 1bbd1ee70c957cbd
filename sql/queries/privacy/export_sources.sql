-- The addresses that completed a handshake for a domain, for the person; without those from when a license on it belonged to
-- another customer. Served by the primary key.
-- :domain text, :customer_id integer
select k.source, k.completed_at_ms
from known_sources k
where k.domain = :domain
  and not exists (
      select 1 from licenses l
      where (l.domain = :domain or l.transfer_domain = :domain)
        and :customer_id is not coalesce(
            (select f.customer_id from former_owners f
             where f.license_id = l.license_id and f.until_ms > k.completed_at_ms order by f.until_ms limit 1), l.customer_id))
order by k.completed_at_ms;
