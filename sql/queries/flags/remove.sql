-- Removes a feature flag.
-- :name text
delete from feature_flags where name = :name;
