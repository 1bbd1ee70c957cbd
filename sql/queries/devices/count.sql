-- How many slots of a license are taken. Served by the index of unique (license_id, hardware_id).
-- :license_id integer
select count(*) from devices where license_id = :license_id;
