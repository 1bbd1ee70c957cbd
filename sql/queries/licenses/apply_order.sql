-- Makes a license what an order says; its first moment, domain and note stay. Served by the primary key.
-- :license_id integer, :plan_id integer or null, :kind text, :device_limit integer, :valid_until_ms integer or null
-- (Unix ms), :pending_days integer or null, :features text, :updates_until_ms integer or null (Unix ms)
update licenses
set plan_id = :plan_id, kind = :kind, device_limit = :device_limit, valid_until_ms = :valid_until_ms,
    pending_days = :pending_days, features = :features, updates_until_ms = :updates_until_ms
where license_id = :license_id;
