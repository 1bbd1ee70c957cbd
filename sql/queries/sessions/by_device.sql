-- The session of a device, unless it has ended: at most one, since a device holds a slot of one license, which runs
-- one session. Served by the index of unique (license_id).
-- :device_id integer
select s.session_id, s.session_token, s.license_id, s.device_id, d.hardware_id, d.machine_id, s.client_version,
       s.address, s.started_at_ms, s.last_heartbeat_at_ms, s.timeout_s
from devices d join active_sessions s on s.license_id = d.license_id and s.device_id = d.device_id
where d.device_id = :device_id;
