-- One session that has not ended, by its id.
-- :session_id integer
select s.session_id, s.session_token, s.license_id, s.device_id, d.hardware_id, d.machine_id, s.client_version,
       s.address, s.started_at_ms, s.last_heartbeat_at_ms, s.timeout_s
from active_sessions s join devices d on d.device_id = s.device_id
where s.session_id = :session_id;
