-- Inserts the session of a license if it has none, or in place of the session :replaces. Changes no row if the license
-- has yet another session: unique (license_id) finds it.
-- :session_id integer, :session_token blob, :license_id, :device_id integer, :client_version, :address text,
-- :now_ms integer (Unix ms), :timeout_s integer, :replaces integer or null
insert into active_sessions (session_id, session_token, license_id, device_id, client_version, address, started_at_ms,
                             last_heartbeat_at_ms, timeout_s)
values (:session_id, :session_token, :license_id, :device_id, :client_version, :address, :now_ms, :now_ms, :timeout_s)
on conflict (license_id) do update
set session_id = excluded.session_id, session_token = excluded.session_token, device_id = excluded.device_id,
    client_version = excluded.client_version, address = excluded.address, started_at_ms = excluded.started_at_ms,
    last_heartbeat_at_ms = excluded.last_heartbeat_at_ms, timeout_s = excluded.timeout_s
where active_sessions.session_id = :replaces;
