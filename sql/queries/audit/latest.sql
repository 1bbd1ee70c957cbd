-- The moment of the last row; none without one.
-- scan ok: by the primary key, one row
select at_ms from audit_log order by audit_id desc limit 1;
