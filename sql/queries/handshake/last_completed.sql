-- When a handshake for a domain was last completed; null if never. Served by the primary key.
-- :domain text
select max(completed_at_ms) as completed_at_ms from known_sources where domain = :domain;
