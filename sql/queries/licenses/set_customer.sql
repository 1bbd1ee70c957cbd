-- Gives a license to a customer. By the primary key.
-- :license_id, :customer_id integer
update licenses set customer_id = :customer_id where license_id = :license_id;
