-- Deletes the row of a session that was counted in a folded row.
-- :session_id integer
delete from session_history where session_id = :session_id;
