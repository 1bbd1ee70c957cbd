-- Changes the terms of a license. Its domain is changed by the handshake module, its state by set_state. The plan is one
-- of the license's own product.
-- :license_id integer, :plan text (its code) or null, :customer_id integer or null, :kind text, :device_limit integer,
-- :valid_from_ms integer, :valid_until_ms integer or null (Unix ms), :pending_days integer or null, :features text,
-- :updates_until_ms integer or null (Unix ms), :note text
update licenses
set plan_id = (select p.plan_id from plans p where p.product_id = licenses.product_id and p.code = :plan),
    customer_id = :customer_id, kind = :kind, device_limit = :device_limit, valid_from_ms = :valid_from_ms,
    valid_until_ms = :valid_until_ms, pending_days = :pending_days, features = :features,
    updates_until_ms = :updates_until_ms, note = :note
where license_id = :license_id;
