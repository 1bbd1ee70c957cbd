-- Deletes retired API keys that are no longer valid.
-- :now_ms integer (Unix ms)
-- scan ok: a handful at most
delete from retired_api_keys where valid_until_ms <= :now_ms;
