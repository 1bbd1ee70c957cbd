-- How many devices last ran each version of a product. The caller compares versions, as numbers.
-- :product_id integer
-- scan ok: before older programs are refused, which concerns all devices of the product
select d.client_version, count(*) as devices
from devices d join licenses l on l.license_id = d.license_id
where l.product_id = :product_id
group by d.client_version
limit 10000;
