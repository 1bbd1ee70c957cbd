-- A connection that writes. Each value is read back by db/pool.rs.
pragma busy_timeout = 3000;          -- ms that a write waits for a lock of another process
pragma synchronous = full;           -- unless [database] synchronous says otherwise
pragma journal_mode = wal;           -- readers and the writer do not wait for each other
pragma foreign_keys = on;
pragma trusted_schema = off;         -- the schema can call only functions that are safe for it
pragma cell_size_check = on;         -- detects damaged pages when they are read
pragma mmap_size = 0;                -- a read error is reported as an error, not as a signal
pragma journal_size_limit = 67108864;
pragma wal_autocheckpoint = 0;       -- db/checkpoint.rs makes checkpoints, and checks the results
pragma cache_size = -16384;          -- KiB
