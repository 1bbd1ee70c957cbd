-- Programs may trust the authority with this public key from now on.
-- :authority blob: its SHA-256, or nothing where there is none yet
update server_state set authority = :authority where id = 1;
