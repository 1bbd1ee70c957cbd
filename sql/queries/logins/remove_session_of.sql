-- Deletes one login of an administrator. Served by the primary key.
-- :admin_id integer, :admin_session_id integer
delete from admin_sessions where admin_session_id = :admin_session_id and admin_id = :admin_id;
