-- Notes that an administrator has reviewed the settings of a product. Served by the primary key.
-- :product_id integer
update client_configs set reviewed = 1 where product_id = :product_id;
