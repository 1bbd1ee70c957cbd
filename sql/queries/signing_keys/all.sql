-- All public keys that programs may have pinned, the most recently retired ones first.
-- scan ok: a handful; each rotation deletes those that have been retired for long
select public_key, role, retired_at_ms from signing_keys order by retired_at_ms desc limit 100;
