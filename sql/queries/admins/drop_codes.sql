-- Recovery codes that count no more. By the primary key.
-- :admin_id integer
delete from recovery_codes where admin_id = :admin_id;
