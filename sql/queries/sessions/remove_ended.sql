-- Removes the row of a session that is counted in another one.
-- :session_id integer
delete from session_history where session_id = :session_id;
