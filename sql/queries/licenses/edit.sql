-- Changes the terms of a license. Its domain is changed by the handshake module.
-- :license_id integer, :kind text, :device_limit integer, :valid_from_ms integer, :valid_until_ms integer or null
-- (Unix ms), :note text
update licenses
set kind = :kind, device_limit = :device_limit, valid_from_ms = :valid_from_ms, valid_until_ms = :valid_until_ms,
    note = :note
where license_id = :license_id;
