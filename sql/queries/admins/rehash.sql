-- The same password, hashed with more effort. By the primary key.
-- :admin_id integer, :password_hash text (PHC form)
update admins set password_hash = :password_hash where admin_id = :admin_id;
