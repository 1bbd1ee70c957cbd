-- Licenses with a transfer in progress, the earliest end of a grace period first, from after an end and an id on; with the
-- time of the last completed handshake for the present domain. Served by license_transfer_until.
-- :product_id integer (null: any), :from_ms, :from_id integer, :limit integer
select l.license_id, coalesce(c.name, '') as customer, l.domain, l.transfer_domain, l.transfer_until_ms,
       l.transfer_confirmed_at_ms,
       (select max(k.completed_at_ms) from known_sources k where k.domain = l.domain) as last_handshake_at_ms
from licenses l left join customers c on c.customer_id = l.customer_id
where l.transfer_until_ms is not null and (l.transfer_until_ms, l.license_id) > (:from_ms, :from_id)
  and (:product_id is null or l.product_id = :product_id)
order by l.transfer_until_ms, l.license_id
limit :limit;
