-- One device of a license by its id.
-- :license_id integer, :device_id integer
select device_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms
from devices
where device_id = :device_id and license_id = :license_id;
