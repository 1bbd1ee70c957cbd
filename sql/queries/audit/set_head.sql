-- Stores the id and hash of the newest entry.
-- :audit_id integer, :hash blob (32 bytes)
update audit_head set audit_id = :audit_id, hash = :hash where id = 1;
