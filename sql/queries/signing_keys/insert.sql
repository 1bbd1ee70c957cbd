-- The public key of a new key pair.
-- :public_key blob, :role text
insert into signing_keys (public_key, role, retired_at_ms) values (:public_key, :role, null);
