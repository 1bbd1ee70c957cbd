-- Deletes every login of an administrator except one. Served by the index admin_session_admin.
-- :admin_id integer, :own integer (the admin_session_id that stays; 0: none)
delete from admin_sessions where admin_id = :admin_id and admin_session_id <> :own;
