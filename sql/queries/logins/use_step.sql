-- Stores the time step of an accepted code, which must not be accepted again (RFC 6238, 5.2).
-- Served by the primary key.
-- :admin_id integer, :step integer
update admins set totp_last_step = :step where admin_id = :admin_id;
