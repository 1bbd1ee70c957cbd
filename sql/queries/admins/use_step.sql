-- A step serves once (RFC 6238, 5.2). By the primary key.
-- :admin_id integer, :step integer
update admins set totp_last_step = :step where admin_id = :admin_id;
