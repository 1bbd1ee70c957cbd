-- Sessions that have not ended, of licenses that are suspended, revoked or expired. Served by license_out_of_use and
-- license_valid_until: few licenses are found there, and most of them have no session.
-- :now_ms integer (Unix ms), :limit integer
select s.session_id, s.session_token, s.license_id, s.device_id, d.hardware_id, d.machine_id, s.client_version,
       s.address, s.started_at_ms, s.last_heartbeat_at_ms, s.timeout_s
from active_sessions s join devices d on d.device_id = s.device_id
where s.license_id in (
    select license_id from licenses where state <> 'active'
    union all
    select license_id from licenses where valid_until_ms < :now_ms)
limit :limit;
