-- Makes the pending secret the second factor. Served by the primary key.
-- :admin_id integer, :step integer (the time step of the code that confirmed it)
update admins set totp_secret = totp_pending, totp_pending = null, totp_last_step = :step
where admin_id = :admin_id and totp_pending is not null;
