-- Start and latest date of the server.
select started_at_ms, high_water_ms from server_state where id = 1;
