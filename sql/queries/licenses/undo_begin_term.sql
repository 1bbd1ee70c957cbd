-- Takes back that the term of a license has begun: the next activation begins it.
-- :license_id integer, :pending_days integer
update licenses set valid_until_ms = null, pending_days = :pending_days where license_id = :license_id;
