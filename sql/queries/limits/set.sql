-- Changes a rate limit.
-- :name text, :per_minute, :burst integer, :now_ms integer (Unix ms)
update rate_limits set per_minute = :per_minute, burst = :burst, updated_at_ms = :now_ms where name = :name;
