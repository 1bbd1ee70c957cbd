-- Whether an administrator has reviewed the settings of the first start.
select reviewed from client_configs where config_id = 1;
