-- Deletes the addresses that completed a handshake for a domain. By the primary key.
-- :domain text
delete from known_sources where domain = :domain;
