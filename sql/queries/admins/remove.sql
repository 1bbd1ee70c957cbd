-- An administrator goes, and with him his logins, codes and browsers. By the primary key.
-- :admin_id integer
delete from admins where admin_id = :admin_id;
