-- The API key that is current, and the name of the product.
select client_name, api_key from client_configs where config_id = 1;
