-- The logins of an administrator, the latest used first. Served by the index admin_session_admin.
-- :admin_id integer
select admin_session_id, stage, address, browser, created_at_ms as session_created_at_ms, seen_at_ms,
       proved_at_ms
from admin_sessions
where admin_id = :admin_id
order by seen_at_ms desc, admin_session_id desc;
