-- Every feature flag, by name.
-- scan ok: every program that starts gets all of them
select name, description, enabled, share_percent from feature_flags order by name limit 1000;
