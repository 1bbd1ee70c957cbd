-- The latest moment of a session, running or ended; null without one.
-- scan ok: of the running ones, once a restore; session_history_ended serves the others
select max(at_ms) from (
    select max(last_heartbeat_at_ms) as at_ms from active_sessions
    union all
    select max(ended_at_ms) from session_history
);
