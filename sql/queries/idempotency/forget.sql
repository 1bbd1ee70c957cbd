-- Deletes the responses stored for a license. By the primary key.
-- :license_id integer
delete from idempotent_answers where license_id = :license_id;
