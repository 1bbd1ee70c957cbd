-- One release of a product in any state. Served by the unique index on product and version.
-- :product_id integer, :version text
select version, channel, notes, download_url, sha256, state, released_at_ms
from releases
where product_id = :product_id and version = :version;
