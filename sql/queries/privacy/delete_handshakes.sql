-- Deletes the log of handshakes for a domain. Served by handshake_domain.
-- :domain text
delete from handshakes where domain = :domain;
