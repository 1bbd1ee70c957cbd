-- Changes a rate limit.
-- :name text, :per_minute, :burst integer or null, :per_hour integer or null, :now_ms integer (Unix ms)
update rate_limits
set per_minute = :per_minute, burst = :burst, per_hour = :per_hour, updated_at_ms = :now_ms
where name = :name;
