-- Sets the term of a license: its expiry date, or the days that its first activation begins.
-- :license_id integer, :valid_until_ms integer or null (Unix ms), :pending_days integer or null
update licenses set valid_until_ms = :valid_until_ms, pending_days = :pending_days where license_id = :license_id;
