-- Inserts the only row, at the first start.
-- named as the columns; :now_ms integer (Unix ms)
insert into client_configs (config_id, client_name, api_key, heartbeat_interval, session_timeout, current_version,
                            minimum_version, session_policy, offline_days, updated_at_ms)
values (1, :client_name, :api_key, :heartbeat_interval, :session_timeout, :current_version,
        :minimum_version, :session_policy, :offline_days, :now_ms);
