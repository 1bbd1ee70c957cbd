-- Sets a role. Served by the primary key.
-- :admin_id integer, :role text
update admins set role = :role where admin_id = :admin_id;
