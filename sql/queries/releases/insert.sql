-- Adds a release.
-- :product_id integer, :version, :channel, :notes text, :download_url, :sha256 text or null, :released_at_ms integer (Unix ms)
insert into releases (product_id, version, channel, notes, download_url, sha256, state, released_at_ms)
values (:product_id, :version, :channel, :notes, :download_url, :sha256, 'released', :released_at_ms);
