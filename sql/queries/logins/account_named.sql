-- What a login needs to know about the account of a name. Served by the unique index on the name.
-- :name text
select admin_id, name, totp_secret is not null as has_totp, password_hash from admins where name = :name;
