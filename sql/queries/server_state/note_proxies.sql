-- Stores the addresses of misconfigured proxies; null leaves a stored address.
-- :unnamed, :untrusted text (addresses)
update server_state
set unnamed_proxy = coalesce(:unnamed, unnamed_proxy), untrusted_proxy = coalesce(:untrusted, untrusted_proxy)
where id = 1;
