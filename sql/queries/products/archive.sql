-- Archives a product for ever. Served by the primary key.
-- :product_id integer, :now_ms integer (Unix ms)
update products set archived_at_ms = :now_ms where product_id = :product_id;
