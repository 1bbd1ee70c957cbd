-- Inserts the settings of a new product.
-- named as the columns; :now_ms integer (Unix ms)
insert into client_configs (product_id, client_name, api_key, heartbeat_interval, session_timeout, current_version,
                            minimum_version, session_policy, offline_days, trial_plan_id, updated_at_ms)
values (:product_id, :client_name, :api_key, :heartbeat_interval, :session_timeout, :current_version,
        :minimum_version, :session_policy, :offline_days, :trial_plan_id, :now_ms);
