-- The latest rows of a license, the latest first. Served by refusal_license.
-- :license_id integer, :since_ms integer (Unix ms), :limit integer
select r.refusal_id, r.at_ms, r.last_at_ms, r.calls, r.code, r.call, r.product_id, r.license_id, l.license_key,
       l.customer_id, coalesce(c.name, '') as customer, r.masked_key, r.hardware_id, r.machine_id, r.client_version,
       r.domain, r.address, r.detail
from refusals r
join licenses l on l.license_id = r.license_id
left join customers c on c.customer_id = l.customer_id
where r.license_id = :license_id and r.at_ms >= :since_ms
order by r.at_ms desc, r.refusal_id desc
limit :limit;
