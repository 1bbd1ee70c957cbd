-- The latest moment at which a device was seen; null without one.
-- scan ok: once a restore
select max(last_seen_at_ms) from devices;
