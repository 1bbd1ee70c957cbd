-- Deletes the row of a session that another row counts now.
-- :session_id integer
delete from session_history where session_id = :session_id;
