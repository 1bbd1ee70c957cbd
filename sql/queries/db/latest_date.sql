-- The latest date in a database, read before it is opened for writing.
select high_water_ms from server_state where id = 1;
