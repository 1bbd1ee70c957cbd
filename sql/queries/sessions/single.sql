-- How many sessions of a license that ended in a span stand by themselves. Served by session_history_license.
-- :license_id integer, :from_ms, :to_ms integer (Unix ms; from the first up to, not including, the second)
select count(*) from session_history
where license_id = :license_id and ended_at_ms >= :from_ms and ended_at_ms < :to_ms and sessions is null;
