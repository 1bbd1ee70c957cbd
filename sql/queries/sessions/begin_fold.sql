-- From now on other sessions are counted in the row of this one.
-- :session_id integer
update session_history set sessions = 1, ran_ms = max(0, ended_at_ms - started_at_ms) where session_id = :session_id;
