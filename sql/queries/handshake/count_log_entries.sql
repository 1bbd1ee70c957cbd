-- How many log entries there are, of one domain or of all: at most 1000. Served by handshake_domain.
-- :domain text or null
select count(*) from handshakes where :domain is null or domain = :domain;
