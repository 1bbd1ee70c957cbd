-- Licenses with a transfer in progress, the earliest end of a grace period first; with the time of the last completed handshake
-- for the present domain. Served by license_transfer_until.
-- :product_id integer (null: any), :limit integer
select license_id, domain, transfer_domain, transfer_until_ms, transfer_confirmed_at_ms,
       (select max(k.completed_at_ms) from known_sources k where k.domain = licenses.domain) as last_handshake_at_ms
from licenses
where transfer_until_ms is not null and (:product_id is null or product_id = :product_id)
order by transfer_until_ms
limit :limit;
