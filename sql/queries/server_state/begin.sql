-- A server starts: silence counts from here at the earliest, and what its proxies do is to be seen anew.
-- :now_ms integer (Unix ms)
update server_state
set started_at_ms = :now_ms, high_water_ms = max(high_water_ms, :now_ms), unnamed_proxy = null, untrusted_proxy = null
where id = 1;
