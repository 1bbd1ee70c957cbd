-- Devices that were last seen before a time and have no session.
-- :before_ms integer (Unix ms), :limit integer
-- scan ok: once an hour, if the settings limit how long devices are kept
select device_id from devices d
where last_seen_at_ms < :before_ms
  and not exists (
      select 1 from active_sessions s where s.license_id = d.license_id and s.device_id = d.device_id)
limit :limit;
