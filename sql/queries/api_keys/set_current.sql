-- Replaces the API key.
-- :api_key text, :now_ms integer (Unix ms)
update client_configs set api_key = :api_key, updated_at_ms = :now_ms where config_id = 1;
