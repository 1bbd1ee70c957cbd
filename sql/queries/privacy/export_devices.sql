-- The devices of a license, for the person. Served by the index of unique (license_id, hardware_id).
-- :license_id integer
select device_id, hardware_id, machine_id, client_version, activated_at_ms, last_seen_at_ms
from devices where license_id = :license_id order by device_id;
