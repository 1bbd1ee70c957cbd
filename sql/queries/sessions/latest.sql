-- When any session last sent a heartbeat or ended; null if there has been no session.
-- scan ok: of active_sessions, once per restore; the ended ones are served by session_history_ended
select max(at_ms) from (
    select max(last_heartbeat_at_ms) as at_ms from active_sessions
    union all
    select max(ended_at_ms) from session_history
);
