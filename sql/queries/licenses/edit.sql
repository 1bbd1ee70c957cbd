-- What was agreed about a license. Its domains are a matter of handshake/set_bond.
-- :license_id integer, :kind text, :device_limit integer, :valid_from_ms integer, :valid_until_ms integer or null
-- (Unix ms), :note text
update licenses
set kind = :kind, device_limit = :device_limit, valid_from_ms = :valid_from_ms, valid_until_ms = :valid_until_ms,
    note = :note
where license_id = :license_id;
