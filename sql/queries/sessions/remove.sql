-- A session runs no longer; its row in the history follows in the same transaction.
-- :session_id integer
delete from active_sessions where session_id = :session_id;
