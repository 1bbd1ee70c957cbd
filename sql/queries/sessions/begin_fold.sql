-- From now on other sessions are counted in the row of this one.
-- :session_id integer
update session_history set sessions = 1 where session_id = :session_id;
