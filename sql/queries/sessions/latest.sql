-- When a session last sent a heartbeat or ended; null without any session.
-- scan ok: of the running sessions, once per restore; session_history_ended serves the others
select max(at_ms) from (
    select max(last_heartbeat_at_ms) as at_ms from active_sessions
    union all
    select max(ended_at_ms) from session_history
);
