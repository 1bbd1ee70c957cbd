-- Replaces the hash of a password that stays the same, by one with stronger parameters. Served by the primary key.
-- :admin_id integer, :password_hash text (PHC form)
update admins set password_hash = :password_hash where admin_id = :admin_id;
