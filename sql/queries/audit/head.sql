-- The id and hash of the newest entry.
select audit_id, hash from audit_head where id = 1;
