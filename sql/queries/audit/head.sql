-- The line that the audit log ended with when it was written last.
select audit_id, hash from audit_head where id = 1;
