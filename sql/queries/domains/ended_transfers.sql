-- Licenses with a transfer whose grace period has passed, at most 1000, so that completing them does not block other writes for
-- long. Served by license_transfer_until.
-- :now_ms integer (Unix ms)
select license_id
from licenses
where transfer_until_ms <= :now_ms
limit 1000;
