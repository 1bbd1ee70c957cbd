-- Adds a row about refused calls.
-- :at_ms, :last_at_ms integer (Unix ms), :calls, :product_id, :license_id integer (the last two may be null), :code, :call,
-- :masked_key, :hardware_id, :machine_id, :client_version, :domain, :address, :network, :detail text
insert into refusals (at_ms, last_at_ms, calls, code, call, product_id, license_id, masked_key, hardware_id, machine_id,
                      client_version, domain, address, network, detail)
values (:at_ms, :last_at_ms, :calls, :code, :call, :product_id, :license_id, :masked_key, :hardware_id, :machine_id,
        :client_version, :domain, :address, :network, :detail);
