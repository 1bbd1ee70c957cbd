-- The time of the newest entry; no row if the log is empty.
-- scan ok: by the primary key, one row
select at_ms from audit_log order by audit_id desc limit 1;
