-- Deletes the responses stored for the licenses of a customer, which hold fingerprints. Served by the primary key.
-- :customer_id integer
delete from idempotent_answers
where license_id in (select license_id from licenses where customer_id = :customer_id);
