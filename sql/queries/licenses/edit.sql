-- What was agreed about a license.
-- :license_id integer, :kind text, :device_limit integer, :valid_from_ms integer, :valid_until_ms integer or null
-- (Unix ms), :domain text or null, :note text
-- Another domain ends a transfer, where one is under way.
update licenses
set kind = :kind, device_limit = :device_limit, valid_from_ms = :valid_from_ms, valid_until_ms = :valid_until_ms,
    domain = :domain, note = :note,
    transfer_domain = case when domain is :domain then transfer_domain end,
    transfer_until_ms = case when domain is :domain then transfer_until_ms end,
    transfer_confirmed_at_ms = case when domain is :domain then transfer_confirmed_at_ms end
where license_id = :license_id;
