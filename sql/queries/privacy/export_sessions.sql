-- The session of a license that has not ended, for the person; without its token, which is a secret.
-- :license_id integer
select session_id, device_id, client_version, address, started_at_ms, last_heartbeat_at_ms, timeout_s
from active_sessions where license_id = :license_id;
