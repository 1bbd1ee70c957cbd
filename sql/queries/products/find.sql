-- The settings of a product. By the primary key.
-- :product_id integer
select product_id, client_name, api_key, heartbeat_interval, session_timeout, current_version, minimum_version,
       session_policy, offline_days, trial_plan_id
from client_configs
where product_id = :product_id;
