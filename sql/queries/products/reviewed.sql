-- Whether an administrator has reviewed the settings of a product. Served by the primary key.
-- :product_id integer
select reviewed from client_configs where product_id = :product_id;
