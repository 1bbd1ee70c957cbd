-- Changes a release. Served by the unique index on product and version.
-- :product_id integer, :version, :channel, :notes text, :download_url, :sha256 text or null
update releases set channel = :channel, notes = :notes, download_url = :download_url, sha256 = :sha256
where product_id = :product_id and version = :version;
