-- One device of a license by its fingerprint. Served by the index of unique (license_id, hardware_id).
-- :license_id integer, :hardware_id text
select device_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms
from devices
where license_id = :license_id and hardware_id = :hardware_id;
