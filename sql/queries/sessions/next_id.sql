-- The id of the next session: higher than any in use. Served by both primary keys.
select 1 + max(coalesce((select max(session_id) from active_sessions), 0),
               coalesce((select max(session_id) from session_history), 0));
