-- Every rate limit in use; the row admin_api is for the management API, which does not exist yet.
-- scan ok: one row a group
select name, per_minute, burst from rate_limits where name <> 'admin_api' order by name;
