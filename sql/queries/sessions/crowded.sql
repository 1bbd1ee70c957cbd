-- Licenses of which more sessions ended on one day than are kept one by one, of those of which one ended lately, where
-- one that is not among the first ended before a moment. The lately ended ones are found in session_history_ended, the
-- days of each in session_history_license.
-- :since_ms, :until_ms integer (Unix ms), :kept, :first, :limit integer; day is the number of the day, UTC
-- scan ok: of the licenses that were found, not of the history
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
