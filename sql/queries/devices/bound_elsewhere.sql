-- Whether a license is a trial that another device started. Served by the primary key. An
-- erased fingerprint is no device's.
-- :license_id integer, :fingerprint_digest blob (SHA-256)
select exists (select 1 from trials where license_id = :license_id and fingerprint_digest is not :fingerprint_digest);
