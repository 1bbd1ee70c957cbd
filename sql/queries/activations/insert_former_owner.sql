-- Notes that a license belonged to a customer until now, before it is given to another one.
-- :license_id, :customer_id integer, :now_ms integer (Unix ms)
insert into former_owners (license_id, customer_id, until_ms) values (:license_id, :customer_id, :now_ms);
