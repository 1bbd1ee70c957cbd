-- Notes the trial of a device. The unique index refuses a second one.
-- :license_id, :product_id integer, :fingerprint_digest blob (SHA-256), :now_ms integer (Unix ms)
insert into trials (license_id, product_id, fingerprint_digest, started_at_ms)
values (:license_id, :product_id, :fingerprint_digest, :now_ms);
