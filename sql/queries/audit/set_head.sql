-- The audit log ends with another line now.
-- :audit_id integer, :hash blob (32 bytes)
update audit_head set audit_id = :audit_id, hash = :hash where id = 1;
