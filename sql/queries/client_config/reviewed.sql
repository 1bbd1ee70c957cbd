-- Whether somebody has looked through what the first start made up.
select reviewed from client_configs where config_id = 1;
