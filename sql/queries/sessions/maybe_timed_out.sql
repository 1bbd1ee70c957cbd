-- A batch of the sessions in active_sessions that have timed out according to their stored heartbeats, or whose stored
-- heartbeat lies more than a minute in the future because the clock was wrong.
-- :after integer (session_id of the last session of the previous batch), :now_ms integer (Unix ms), :limit integer
-- scan ok: by the primary key, each row at most once per sweep
select s.session_id, s.session_token, s.license_id, s.device_id, d.hardware_id, d.machine_id, s.client_version,
       s.address, s.started_at_ms, s.last_heartbeat_at_ms, s.timeout_s
from active_sessions s join devices d on d.device_id = s.device_id
where s.session_id > :after
  and (s.last_heartbeat_at_ms + s.timeout_s * 1000 <= :now_ms or s.last_heartbeat_at_ms > :now_ms + 60000)
order by s.session_id
limit :limit;
