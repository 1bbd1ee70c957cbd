-- Deletes the recovery codes of an administrator. Served by the primary key.
-- :admin_id integer
delete from recovery_codes where admin_id = :admin_id;
