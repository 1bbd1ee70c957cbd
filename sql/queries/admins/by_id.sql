-- An administrator by id. Served by the primary key.
-- :admin_id integer
select admin_id, name, role, language, time_zone, single_keys, totp_secret is not null as has_totp, created_at_ms,
       password_set_at_ms
from admins
where admin_id = :admin_id;
