-- How many sessions of a product have not ended; those that have timed out and await the sweep count too.
-- :product_id integer
-- scan ok: a shop has a few thousand running sessions; once per product that is archived
select count(*)
from active_sessions s join licenses l on l.license_id = s.license_id
where l.product_id = :product_id;
