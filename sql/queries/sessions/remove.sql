-- Deletes a session that ends; the caller adds it to the history in the same transaction.
-- :session_id integer
delete from active_sessions where session_id = :session_id;
