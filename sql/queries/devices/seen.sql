-- Stores when a device was last seen, unless a later moment is stored already.
-- :device_id integer, :at_ms integer (Unix ms)
update devices set last_seen_at_ms = max(last_seen_at_ms, :at_ms) where device_id = :device_id;
