-- One release, whatever its state. Served by the version's own index.
-- :version text
select version, channel, notes, download_url, sha256, state, released_at_ms from releases where version = :version;
