-- What is said of a release. Served by the version's own index.
-- :version, :channel, :notes text, :download_url, :sha256 text or null
update releases set channel = :channel, notes = :notes, download_url = :download_url, sha256 = :sha256
where version = :version;
