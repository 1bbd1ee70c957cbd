-- When a device was last seen; null without any device.
-- scan ok: once per restore
select max(last_seen_at_ms) from devices;
