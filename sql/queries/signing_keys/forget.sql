-- Forgets the keys that nothing signed with is still believed of.
-- :before_ms integer (Unix ms)
-- scan ok: a handful, at each rotation
delete from signing_keys where role = 'previous' and retired_at_ms < :before_ms;
