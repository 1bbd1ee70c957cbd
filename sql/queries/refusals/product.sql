-- The product of a license. Served by the primary key.
-- :license_id integer
select product_id from licenses where license_id = :license_id;
