-- API keys that were rotated out. Whether one is still valid is checked when a request presents it.
-- scan ok: a handful at most; each rotation deletes the expired ones
select api_key, valid_until_ms from retired_api_keys order by valid_until_ms desc limit 100;
