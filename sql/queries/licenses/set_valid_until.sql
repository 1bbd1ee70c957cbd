-- Sets the expiry date of a license.
-- :license_id integer, :valid_until_ms integer (Unix ms)
update licenses set valid_until_ms = :valid_until_ms where license_id = :license_id;
