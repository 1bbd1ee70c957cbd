-- The certificate authority that programs trust, and whether a server has ever used this database.
select authority, started_at_ms from server_state where id = 1;
