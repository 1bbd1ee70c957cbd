-- Stores an API key that was rotated out and stays valid for a while; one that was rotated out before and set again since
-- is stored already.
-- :api_key text, :product_id integer, :valid_until_ms integer (Unix ms)
insert into retired_api_keys (api_key, product_id, valid_until_ms) values (:api_key, :product_id, :valid_until_ms)
on conflict (api_key) do update set valid_until_ms = excluded.valid_until_ms;
