-- A new license, valid from now.
-- :license_key text, :product_id integer, :plan_id, :customer_id integer or null, :kind text, :device_limit integer,
-- :valid_until_ms integer or null, :pending_days integer or null, :features text, :updates_until_ms integer or null,
-- :domain text or null, :note text, :now_ms integer (Unix ms)
insert into licenses (license_key, product_id, plan_id, customer_id, kind, state, device_limit, valid_from_ms,
                      valid_until_ms, pending_days, features, updates_until_ms, domain, note, created_at_ms)
values (:license_key, :product_id, :plan_id, :customer_id, :kind, 'active', :device_limit, :now_ms,
        :valid_until_ms, :pending_days, :features, :updates_until_ms, :domain, :note, :now_ms);
