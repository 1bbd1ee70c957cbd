-- The newest line, whose hash the next one carries on.
-- scan ok: from the end of the primary key, one row
select audit_id, hash from audit_log order by audit_id desc limit 1;
