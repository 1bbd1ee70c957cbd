-- What a login needs to know about an account. Served by the primary key.
-- :admin_id integer
select admin_id, name, totp_secret is not null as has_totp, password_hash from admins where admin_id = :admin_id;
