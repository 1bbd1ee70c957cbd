-- Log entries with an id above :id, oldest first, of one domain or of all. Served by the primary key.
-- :id integer, :domain text or null, :limit integer
select handshake_id, at_ms, domain, source, license_id, operation, ending as outcome, reason
from handshakes
where handshake_id > :id and (:domain is null or domain = :domain)
order by handshake_id
limit :limit;
