-- Every public key that anybody may have pinned, the youngest of the retired ones first.
-- scan ok: a handful; those that are retired for long are forgotten at each rotation
select public_key, role, retired_at_ms from signing_keys order by retired_at_ms desc limit 100;
