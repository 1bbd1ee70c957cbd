-- How many devices of a product that were seen on a day or later last ran each version. The caller compares versions, as
-- numbers. Served by the primary key.
-- :product_id integer, :since_day integer (days since 1970-01-01, UTC)
select client_version, sum(devices) as devices
from version_counts
where product_id = :product_id and day >= :since_day
group by client_version
limit 10000;
