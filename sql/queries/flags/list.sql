-- Every feature flag of a product, by name. Served by the primary key.
-- :product_id integer
select name, description, enabled, share_percent
from feature_flags
where product_id = :product_id
order by name
limit 1000;
