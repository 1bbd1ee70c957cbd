-- The authority of our own that programs may trust, so that a lost one is noticed and not replaced without a word.

-- The SHA-256 of its public key. Empty: there was none yet. Null: not known, the database is from an earlier version.
alter table server_state add column authority blob check (length(authority) in (0, 32));
