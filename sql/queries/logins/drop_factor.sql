-- Removes the second factor of an administrator. Served by the primary key.
-- :admin_id integer
update admins set totp_secret = null, totp_pending = null, totp_last_step = 0 where admin_id = :admin_id;
