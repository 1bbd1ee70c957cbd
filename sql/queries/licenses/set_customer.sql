-- Gives a license to a customer. Served by the primary key.
-- :license_id, :customer_id integer
update licenses set customer_id = :customer_id where license_id = :license_id;
