-- Stores the start of a server and clears what the last one saw of proxies. No session times out sooner than its timeout after this.
-- :now_ms integer (Unix ms)
update server_state
set started_at_ms = :now_ms, high_water_ms = max(high_water_ms, :now_ms), unnamed_proxy = null, untrusted_proxy = null
where id = 1;
