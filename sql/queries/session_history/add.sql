-- Adds an ended session to the history.
-- The parameters have the types of the columns; times are in Unix ms.
insert into session_history (session_id, session_token, license_id, hardware_id, machine_id, client_version, address,
                             started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason)
values (:session_id, :session_token, :license_id, :hardware_id, :machine_id, :client_version, :address,
        :started_at_ms, :last_heartbeat_at_ms, :ended_at_ms, :end_reason);
