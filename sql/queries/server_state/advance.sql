-- The file has seen a moment.
-- :now_ms integer (Unix ms)
update server_state set high_water_ms = max(high_water_ms, :now_ms) where id = 1;
