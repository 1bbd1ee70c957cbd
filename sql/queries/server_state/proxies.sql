-- The addresses of misconfigured proxies that the running server, or the last one, has seen.
select unnamed_proxy, untrusted_proxy from server_state where id = 1;
