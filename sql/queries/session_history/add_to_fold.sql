-- Counts one more session in a folded row, which stands for several. Device, version and address become those of this
-- session.
-- :into integer (session_id of the folded row), :session_id integer (the session; the caller deletes its row next)
update session_history
set sessions = sessions + 1,
    (hardware_id, machine_id, client_version, address, last_heartbeat_at_ms, ended_at_ms, ran_ms) = (
        select h.hardware_id, h.machine_id, h.client_version, h.address, h.last_heartbeat_at_ms, h.ended_at_ms,
               session_history.ran_ms + max(0, h.ended_at_ms - h.started_at_ms)
        from session_history h where h.session_id = :session_id)
where session_id = :into;
