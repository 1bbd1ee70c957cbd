-- Stores the name and version that a device sent last.
-- :device_id integer, :machine_id, :client_version text, :now_ms integer (Unix ms)
update devices
set machine_id = :machine_id, client_version = :client_version, last_seen_at_ms = :now_ms
where device_id = :device_id;
