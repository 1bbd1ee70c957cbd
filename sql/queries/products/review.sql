-- Notes that an administrator has reviewed the settings of the first start.
update client_configs set reviewed = 1 where config_id = 1;
