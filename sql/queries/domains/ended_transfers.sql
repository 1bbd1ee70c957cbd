-- Licenses with a transfer whose grace period has passed. By license_transfer_until.
-- :now_ms integer (Unix ms)
select license_id
from licenses
where transfer_until_ms <= :now_ms
limit 1000;
