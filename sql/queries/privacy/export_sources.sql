-- The addresses that completed a handshake for a domain, for the person. By the primary key.
-- :domain text
select source, completed_at_ms from known_sources where domain = :domain order by completed_at_ms;
