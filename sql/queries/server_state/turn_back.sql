-- An operator says that the later dates were wrong.
-- :now_ms integer (Unix ms)
update server_state set high_water_ms = :now_ms where id = 1;
