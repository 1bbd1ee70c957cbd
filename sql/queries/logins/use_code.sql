-- Deletes a recovery code when it is used. Served by the primary key.
-- :admin_id integer, :code_hash blob (SHA-256)
delete from recovery_codes where admin_id = :admin_id and code_hash = :code_hash;
