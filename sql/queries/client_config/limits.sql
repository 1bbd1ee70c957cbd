-- Every rate limit.
-- scan ok: one row a group
select name, per_minute, burst from rate_limits order by name;
