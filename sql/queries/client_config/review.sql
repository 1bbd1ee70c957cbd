-- Somebody has looked through what the first start made up.
update client_configs set reviewed = 1 where config_id = 1;
