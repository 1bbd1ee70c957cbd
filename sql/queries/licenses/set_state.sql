-- Puts a license into another state.
-- :license_id integer, :state text
update licenses set state = :state where license_id = :license_id;
