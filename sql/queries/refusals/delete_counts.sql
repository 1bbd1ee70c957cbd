-- Deletes old counts of refusals. Served by the primary key.
-- :before integer (days since 1970-01-01, UTC)
delete from daily_refusals where day < :before;
