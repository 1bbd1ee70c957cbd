-- A read-only connection of the pool.
pragma busy_timeout = 3000;
pragma foreign_keys = on;
pragma trusted_schema = off;
pragma cell_size_check = on;
pragma mmap_size = 0;
pragma journal_size_limit = 67108864;
pragma wal_autocheckpoint = 0;
pragma query_only = on;
pragma cache_size = -4096;           -- KiB
