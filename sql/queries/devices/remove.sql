-- Frees a slot. Refused by the file while a session of the device runs.
-- :device_id integer
delete from devices where device_id = :device_id;
