-- The handshakes for a domain, for the person. Served by handshake_domain.
-- :domain text
select at_ms, source, operation, ending, reason from handshakes where domain = :domain order by handshake_id;
