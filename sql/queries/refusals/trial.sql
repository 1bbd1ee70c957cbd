-- The license of the trial of a device. Served by the index of unique (product_id, fingerprint_digest).
-- :product_id integer, :fingerprint_digest blob
select license_id from trials where product_id = :product_id and fingerprint_digest = :fingerprint_digest;
