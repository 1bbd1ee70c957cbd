-- Every login of an administrator ends but one. Served by the index admin_session_admin.
-- :admin_id integer, :but integer (admin_session_id; 0: none stays)
delete from admin_sessions where admin_id = :admin_id and admin_session_id <> :but;
