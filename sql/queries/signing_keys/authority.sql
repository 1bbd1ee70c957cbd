-- The authority that programs may trust, and whether the database has ever been served.
select authority, started_at_ms from server_state where id = 1;
