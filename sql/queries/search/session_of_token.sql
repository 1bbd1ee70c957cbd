-- The session with this token, whether it runs or has ended. Served by the indexes of unique (session_token).
-- :session_token blob (16 bytes)
select session_id from active_sessions where session_token = :session_token
union all
select session_id from session_history where session_token = :session_token;
