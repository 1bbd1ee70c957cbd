-- Deletes the known browsers of an administrator. Served by the index known_browser_admin.
-- :admin_id integer
delete from known_browsers where admin_id = :admin_id;
