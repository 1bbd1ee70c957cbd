-- The secret that was shown is the second factor from now on. By the primary key.
-- :admin_id integer, :step integer (that confirmed it)
update admins set totp_secret = totp_pending, totp_pending = null, totp_last_step = :step
where admin_id = :admin_id and totp_pending is not null;
