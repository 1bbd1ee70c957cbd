-- A server starts: silence counts from here at the earliest.
-- :now_ms integer (Unix ms)
update server_state set started_at_ms = :now_ms, high_water_ms = max(high_water_ms, :now_ms) where id = 1;
