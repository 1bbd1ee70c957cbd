-- A connection that writes. Each value is read back by db/pool.rs.
pragma busy_timeout = 3000;          -- a foreign lock makes a write wait 3 s, then refuse
pragma synchronous = full;           -- unless [database] synchronous says otherwise
pragma journal_mode = wal;           -- readers and the writer do not wait for each other
pragma foreign_keys = on;
pragma trusted_schema = off;         -- the schema may call no function that it should not
pragma cell_size_check = on;         -- a damaged page is noticed when it is read
pragma mmap_size = 0;                -- a read error is an error, not a signal
pragma journal_size_limit = 67108864;
pragma wal_autocheckpoint = 0;       -- db/checkpoint.rs does it, and looks at every answer
pragma cache_size = -16384;          -- KiB
