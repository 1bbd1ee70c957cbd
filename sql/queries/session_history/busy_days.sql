-- Days on which more sessions of a license ended than may have a row of their own. Only days on which one ended from
-- :since_ms to :until_ms, and only if there is one that may be folded. The recent ends are found in
-- session_history_ended, the sessions of each day in session_history_license.
-- :since_ms, :until_ms integer (Unix ms), :kept (rows that stay), :first (of these, those from the start of the day),
-- :limit integer; day counts from 1970-01-01, UTC
-- scan ok: of the days that were found, not of the history
select lately.license_id, lately.day
from (select distinct license_id, ended_at_ms / 86400000 as day
      from session_history indexed by session_history_ended
      where ended_at_ms >= :since_ms and ended_at_ms < :until_ms) as lately
where (select count(*) from session_history h
       where h.license_id = lately.license_id and h.sessions is null
         and h.ended_at_ms >= lately.day * 86400000 and h.ended_at_ms < (lately.day + 1) * 86400000) > :kept
  and (select count(*) from session_history h
       where h.license_id = lately.license_id and h.sessions is null
         and h.ended_at_ms >= lately.day * 86400000
         and h.ended_at_ms < min((lately.day + 1) * 86400000, :until_ms)) > :first
limit :limit;
