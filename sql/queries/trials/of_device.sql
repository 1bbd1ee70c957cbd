-- The license of the trial that a device started, whatever its state. Served by the index of unique (product_id,
-- fingerprint_digest).
-- :product_id integer, :fingerprint_digest blob (SHA-256)
select license_id from trials where product_id = :product_id and fingerprint_digest = :fingerprint_digest;
