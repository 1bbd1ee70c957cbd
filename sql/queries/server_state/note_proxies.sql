-- Keeps what was seen of proxies; null: nothing new.
-- :unnamed, :untrusted text (addresses)
update server_state
set unnamed_proxy = coalesce(:unnamed, unnamed_proxy), untrusted_proxy = coalesce(:untrusted, untrusted_proxy)
where id = 1;
