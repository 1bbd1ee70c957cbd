-- The sessions with the lowest ids that have not been moved to the history, whether timed out or not.
-- :limit integer
-- scan ok: by the primary key, up to the limit; once per restore
select s.session_id, s.session_token, s.license_id, s.device_id, d.hardware_id, d.machine_id, s.client_version,
       s.address, s.started_at_ms, s.last_heartbeat_at_ms, s.timeout_s
from active_sessions s join devices d on d.device_id = s.device_id
order by s.session_id
limit :limit;
