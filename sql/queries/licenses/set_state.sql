-- Sets the state of a license.
-- :license_id integer, :state text
update licenses set state = :state where license_id = :license_id;
