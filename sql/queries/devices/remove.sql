-- Frees a slot. A foreign key refuses that while a session of the device runs.
-- :device_id integer
delete from devices where device_id = :device_id
returning license_id;
