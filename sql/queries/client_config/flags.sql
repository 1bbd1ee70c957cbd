-- Every feature flag.
-- scan ok: all of them go to every program that starts
select name, description, enabled, share_percent from feature_flags order by name limit 1000;
