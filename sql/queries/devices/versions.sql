-- How many devices last ran each version. The caller compares versions, as numbers.
-- scan ok: before older programs are refused, which concerns all devices
select client_version, count(*) as devices from devices group by client_version limit 10000;
