-- The folded row of a license for one end reason in a time span: it stands for several sessions. Served by
-- session_history_license.
-- :license_id integer, :end_reason text, :from_ms, :to_ms integer (Unix ms; included, excluded)
select session_id from session_history
where license_id = :license_id and end_reason = :end_reason and ended_at_ms >= :from_ms and ended_at_ms < :to_ms
  and sessions is not null
limit 1;
