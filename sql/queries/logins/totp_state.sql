-- The second factor of an administrator, and the number of unused recovery codes. Served by the primary key.
-- :admin_id integer
select totp_secret, totp_pending, totp_last_step,
       (select count(*) from recovery_codes c where c.admin_id = a.admin_id) as codes
from admins a
where a.admin_id = :admin_id;
