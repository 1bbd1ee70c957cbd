-- Browsers that nobody has logged in from for long.
-- :seen_ms integer (Unix ms)
-- scan ok: a handful, once an hour
delete from known_browsers where seen_at_ms <= :seen_ms;
