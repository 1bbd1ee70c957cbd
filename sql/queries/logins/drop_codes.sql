-- Deletes the recovery codes of an administrator. By the primary key.
-- :admin_id integer
delete from recovery_codes where admin_id = :admin_id;
