-- Deletes browsers that have not been used for a long time.
-- :seen_ms integer (Unix ms)
-- scan ok: few rows, once an hour
delete from known_browsers where seen_at_ms <= :seen_ms;
