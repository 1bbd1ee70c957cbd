-- Sets a password. Served by the primary key.
-- :admin_id integer, :password_hash text (PHC form), :now_ms integer (Unix ms)
update admins set password_hash = :password_hash, password_set_at_ms = :now_ms where admin_id = :admin_id;
