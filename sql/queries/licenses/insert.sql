-- A new license, valid from now.
-- :license_key text, :customer_id integer, :kind text, :device_limit integer, :valid_until_ms integer or null,
-- :domain text or null, :note text, :now_ms integer (Unix ms)
insert into licenses (license_key, customer_id, kind, state, device_limit, valid_from_ms, valid_until_ms, domain,
                      note, created_at_ms)
values (:license_key, :customer_id, :kind, 'active', :device_limit, :now_ms, :valid_until_ms, :domain,
        :note, :now_ms);
