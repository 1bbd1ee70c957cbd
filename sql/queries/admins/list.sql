-- Every administrator, by name.
-- scan ok: few rows
select admin_id, name, role, language, time_zone, single_keys, totp_secret is not null as has_totp, created_at_ms,
       password_set_at_ms
from admins
order by name collate nocase;
