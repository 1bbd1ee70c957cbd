-- Sets the secret that waits for its first code. Served by the primary key.
-- :admin_id integer, :totp_pending blob
update admins set totp_pending = :totp_pending where admin_id = :admin_id;
