-- The only row.
select client_name, api_key, heartbeat_interval, session_timeout, current_version, minimum_version, session_policy,
       offline_days
from client_configs
where config_id = 1;
