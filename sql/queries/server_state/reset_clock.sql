-- Sets the latest date, also back: an operator has corrected a clock that was ahead.
-- :now_ms integer (Unix ms)
update server_state set high_water_ms = :now_ms where id = 1;
