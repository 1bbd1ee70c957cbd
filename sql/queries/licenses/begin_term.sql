-- Begins the term of a license with its first activation.
-- :license_id integer, :valid_until_ms integer (Unix ms)
update licenses set valid_until_ms = :valid_until_ms, pending_days = null where license_id = :license_id;
