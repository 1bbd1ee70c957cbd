-- Which versions the devices last ran. Versions are compared by the program, as numbers.
-- scan ok: asked before older programs are refused, and all devices are wanted then
select client_version, count(*) as devices from devices group by client_version limit 10000;
