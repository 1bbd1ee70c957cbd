-- Removes what names a customer, unless that is done. Served by the primary key.
-- :customer_id integer, :name text, :erased_at_ms integer (Unix ms)
update customers set name = :name, email = '', company = '', note = '', erased_at_ms = :erased_at_ms
where customer_id = :customer_id and erased_at_ms is null;
