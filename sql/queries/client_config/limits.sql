-- Every rate limit that something is held to: the row of the management API waits until there is one.
-- scan ok: one row a group
select name, per_minute, burst from rate_limits where name <> 'admin_api' order by name;
