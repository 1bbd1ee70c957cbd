-- API keys that were rotated out; whether one still opens the door is judged when it is presented.
-- scan ok: a handful at most, forgotten at each rotation
select api_key, valid_until_ms from retired_api_keys order by valid_until_ms desc limit 100;
