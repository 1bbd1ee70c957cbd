-- The ended sessions of a license, for the person; without their tokens. Served by session_history_license.
-- :license_id integer
select session_id, hardware_id, machine_id, client_version, address, started_at_ms, last_heartbeat_at_ms, ended_at_ms,
       end_reason, sessions
from session_history where license_id = :license_id order by ended_at_ms, session_id;
