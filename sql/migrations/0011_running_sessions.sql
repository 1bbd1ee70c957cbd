-- Whether a session runs is decided in one place: it does until its timeout has passed since its last heartbeat or
-- since the start of the server, whichever is later. A restart of the server ends no session.

-- The sessions that have not been ended. At a moment, those with a later `runs_until_ms` run; the others have timed out
-- and await the sweep.
create view running_sessions as
select s.session_id, s.license_id, s.device_id, s.client_version, s.address, s.started_at_ms, s.last_heartbeat_at_ms,
       max(s.last_heartbeat_at_ms, (select started_at_ms from server_state where id = 1)) + s.timeout_s * 1000
           as runs_until_ms
from active_sessions s;
