-- Sessions of a license that ended in a time span and before :until_ms, and have a row of their own, in the order of
-- their ends and without the first ones. Served by session_history_license.
-- :license_id integer, :from_ms, :to_ms integer (Unix ms; included, excluded),
-- :until_ms integer (Unix ms), :first integer (how many are left out), :limit integer
select session_id, end_reason from session_history
where license_id = :license_id and ended_at_ms >= :from_ms and ended_at_ms < min(:to_ms, :until_ms)
  and sessions is null
order by ended_at_ms, session_id
limit :limit offset :first;
