-- How many licenses there are. Served by license_product alone: the cross join keeps products in the outer loop.
-- :product_id integer (null: any)
-- scan ok: counted in an index, a millisecond for ten thousand rows
select count(*)
from products p cross join licenses l on l.product_id = p.product_id
where :product_id is null or p.product_id = :product_id;
