-- Changes the settings of a product. Served by the primary key.
-- named as the columns; :now_ms integer (Unix ms)
update client_configs
set client_name = :client_name, api_key = :api_key, heartbeat_interval = :heartbeat_interval,
    session_timeout = :session_timeout, current_version = :current_version, minimum_version = :minimum_version,
    session_policy = :session_policy, offline_days = :offline_days, trial_plan_id = :trial_plan_id,
    updated_at_ms = :now_ms
where product_id = :product_id;
