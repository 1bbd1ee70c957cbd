-- What the server that runs, or ran last, has seen of proxies.
select unnamed_proxy, untrusted_proxy from server_state where id = 1;
