-- One release in any state. By the unique index on the version.
-- :version text
select version, channel, notes, download_url, sha256, state, released_at_ms from releases where version = :version;
