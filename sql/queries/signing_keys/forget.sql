-- Deletes retired keys whose signatures have all expired.
-- :before_ms integer (Unix ms)
-- scan ok: a handful, at each rotation
delete from signing_keys where role = 'previous' and retired_at_ms < :before_ms;
