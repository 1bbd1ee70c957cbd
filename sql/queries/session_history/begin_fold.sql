-- Makes a row a folded row, which stands for several sessions; so far it counts only its own.
-- :session_id integer
update session_history set sessions = 1, ran_ms = max(0, ended_at_ms - started_at_ms) where session_id = :session_id;
