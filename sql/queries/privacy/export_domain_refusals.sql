-- The refused handshakes for a domain that named no known license, for the person; without those from when a license on it
-- belonged to another customer. Served by refusal_without_license.
-- :domain text, :customer_id integer
select r.at_ms, r.last_at_ms, r.calls, r.code, r.call, r.address, r.detail
from refusals r
where r.license_id is null and r.at_ms >= 0 and r.domain = :domain
  and not exists (
      select 1 from licenses l
      where (l.domain = :domain or l.transfer_domain = :domain)
        and :customer_id is not coalesce(
            (select f.customer_id from former_owners f
             where f.license_id = l.license_id and f.until_ms > r.at_ms order by f.until_ms limit 1), l.customer_id))
order by r.at_ms, r.refusal_id;
