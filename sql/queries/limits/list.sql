-- Every rate limit in use; the row admin_api is for the management API, which does not exist yet. The group trials has
-- per_hour, every other one per_minute and burst.
-- scan ok: one row a group
select name, per_minute, burst, per_hour from rate_limits where name <> 'admin_api' order by name;
