-- The latest date that a database knows, asked for before it is opened for writing.
select high_water_ms from server_state where id = 1;
