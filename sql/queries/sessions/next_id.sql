-- The number of the next session: above every one that is known. Served by both primary keys.
select 1 + max(coalesce((select max(session_id) from active_sessions), 0),
               coalesce((select max(session_id) from session_history), 0));
