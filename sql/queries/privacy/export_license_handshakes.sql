-- The handshakes that named a license while it belonged to a customer, for the person. Served by handshake_license.
-- :license_id, :customer_id integer
select h.at_ms, h.domain, h.source, h.operation, h.ending, h.reason
from handshakes h
where h.license_id = :license_id
  and :customer_id = coalesce(
      (select f.customer_id from former_owners f
       where f.license_id = h.license_id and f.until_ms > h.at_ms order by f.until_ms limit 1),
      (select l.customer_id from licenses l where l.license_id = h.license_id))
order by h.handshake_id;
