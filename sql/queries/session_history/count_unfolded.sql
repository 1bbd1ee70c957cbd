-- How many sessions of a license that ended in a time span have a row of their own. Served by session_history_license.
-- :license_id integer, :from_ms, :to_ms integer (Unix ms; included, excluded)
select count(*) from session_history
where license_id = :license_id and ended_at_ms >= :from_ms and ended_at_ms < :to_ms and sessions is null;
