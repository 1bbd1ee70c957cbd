-- The settings of a product, with the code of its trial plan. Served by the primary keys.
-- :product_id integer
select c.product_id, c.client_name, c.api_key, c.heartbeat_interval, c.session_timeout, c.current_version,
       c.minimum_version, c.session_policy, c.offline_days, c.trial_plan_id, p.code as trial_plan
from client_configs c left join plans p on p.plan_id = c.trial_plan_id
where c.product_id = :product_id;
