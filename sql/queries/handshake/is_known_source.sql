-- Whether this source completed a handshake for a domain at or after :since_ms. Served by the primary key.
-- :domain, :source text, :since_ms integer (Unix ms)
select exists (select 1 from known_sources
               where domain = :domain and source = :source and completed_at_ms >= :since_ms);
