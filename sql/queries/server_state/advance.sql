-- Raises the latest date, if :now_ms is later.
update server_state set high_water_ms = max(high_water_ms, :now_ms) where id = 1;
