-- What the running server has seen of proxies, for `check`; each start forgets it.
alter table server_state add column unnamed_proxy text;     -- a trusted one that did not say whom it spoke for
alter table server_state add column untrusted_proxy text;   -- one nearby that is not in trusted_proxies
