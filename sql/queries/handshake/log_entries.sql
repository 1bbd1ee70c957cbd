-- The log entries of one domain or of all, newest first. Served by the primary key.
-- :domain text or null, :limit integer
-- scan ok: up to the limit
select handshake_id, at_ms, domain, source, license_id, operation, ending as outcome, reason
from handshakes
where :domain is null or domain = :domain
order by handshake_id desc
limit :limit;
