-- Adds a recovery code.
-- :admin_id integer, :code_hash blob (SHA-256)
insert into recovery_codes (admin_id, code_hash) values (:admin_id, :code_hash);
