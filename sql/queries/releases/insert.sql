-- Adds a release.
-- :version, :channel, :notes text, :download_url, :sha256 text or null, :released_at_ms integer (Unix ms)
insert into releases (version, channel, notes, download_url, sha256, state, released_at_ms)
values (:version, :channel, :notes, :download_url, :sha256, 'released', :released_at_ms);
