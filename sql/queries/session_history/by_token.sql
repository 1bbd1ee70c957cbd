-- How the ended session with this token ended, and its license. Served by the index of unique (session_token).
-- :session_token blob (16 bytes)
select license_id, end_reason from session_history where session_token = :session_token;
