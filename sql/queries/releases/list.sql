-- The releases of a product, the last added first. The program sorts them, since it compares versions numerically. Served
-- by the unique index on product and version.
-- :product_id integer, :limit integer
select version, channel, notes, download_url, sha256, state, released_at_ms
from releases
where product_id = :product_id
order by release_id desc
limit :limit;
