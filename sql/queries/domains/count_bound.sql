-- The number of licenses that are bound to a domain. Served by license_domain.
-- :product_id integer (null: any)
select count(*)
from licenses
where domain is not null and (:product_id is null or product_id = :product_id);
