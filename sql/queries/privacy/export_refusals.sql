-- The refused calls that named a license while it belonged to a customer, for the person. Served by refusal_license.
-- :license_id, :customer_id integer
select r.at_ms, r.last_at_ms, r.calls, r.code, r.call, r.hardware_id, r.machine_id, r.client_version, r.domain, r.address,
       r.detail
from refusals r
where r.license_id = :license_id
  and :customer_id = coalesce(
      (select f.customer_id from former_owners f
       where f.license_id = r.license_id and f.until_ms > r.at_ms order by f.until_ms limit 1),
      (select l.customer_id from licenses l where l.license_id = r.license_id))
order by r.at_ms, r.refusal_id;
