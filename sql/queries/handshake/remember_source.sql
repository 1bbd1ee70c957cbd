-- Notes that a source completed a handshake for a domain.
-- :domain, :source text, :now_ms integer (Unix ms)
insert into known_sources (domain, source, completed_at_ms) values (:domain, :source, :now_ms)
on conflict (domain, source) do update set completed_at_ms = excluded.completed_at_ms;
