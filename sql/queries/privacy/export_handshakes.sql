-- The handshakes for a domain that named no license, for the person; without those from when a license on it belonged to another customer. Served
-- by handshake_domain.
-- :domain text, :customer_id integer
select h.at_ms, h.source, h.operation, h.ending, h.reason
from handshakes h
where h.domain = :domain and h.license_id is null
  and not exists (
      select 1 from licenses l
      where (l.domain = :domain or l.transfer_domain = :domain)
        and :customer_id is not coalesce(
            (select f.customer_id from former_owners f
             where f.license_id = l.license_id and f.until_ms > h.at_ms order by f.until_ms limit 1), l.customer_id))
order by h.handshake_id;
