-- Records the certificate authority that programs trust.
-- :authority blob: SHA-256 of its public key; empty if there is none yet
update server_state set authority = :authority where id = 1;
