-- Deletes an administrator, with all logins, recovery codes and known browsers. Served by the primary key.
-- :admin_id integer
delete from admins where admin_id = :admin_id;
