-- Whether a product has a plan with this code, archived or not. Served by the unique index on product and code.
-- :product_id integer, :code text
select exists (select 1 from plans where product_id = :product_id and code = :code);
