-- The newest line, whose hash the next one carries on.
select audit_id, hash from audit_log order by audit_id desc limit 1;
