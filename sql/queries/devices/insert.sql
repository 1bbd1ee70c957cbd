-- Gives a device a slot; the trigger device_slots refuses one too many.
-- :license_id integer, :hardware_id, :machine_id, :client_version text, :now_ms integer (Unix ms)
insert into devices (license_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms)
values (:license_id, :hardware_id, :machine_id, :client_version, :now_ms, :now_ms);
