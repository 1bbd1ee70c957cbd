-- All releases of a product. The program sorts them, since it compares versions numerically. By the unique index on
-- product and version.
-- :product_id integer
select version, channel, notes, download_url, sha256, state, released_at_ms
from releases
where product_id = :product_id
limit 10000;
