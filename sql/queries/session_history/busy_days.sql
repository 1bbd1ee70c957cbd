-- Days on which more sessions of a license ended than may have a row of their own, and on which at least one of them
-- may be folded. Only days on which a session ended from :since_ms to before :until_ms: these are found in
-- session_history_ended, and the sessions of each day in session_history_license.
-- :since_ms, :until_ms integer (Unix ms), :kept integer (sessions that keep a row of their own), :first integer (how
-- many of these are the first of the day), :limit integer; day counts from 1970-01-01, UTC
-- scan ok: of the days that were found, not of the history
select recent.license_id, recent.day
from (select distinct license_id, ended_at_ms / 86400000 as day
      from session_history indexed by session_history_ended
      where ended_at_ms >= :since_ms and ended_at_ms < :until_ms) as recent
where (select count(*) from session_history h
       where h.license_id = recent.license_id and h.sessions is null
         and h.ended_at_ms >= recent.day * 86400000 and h.ended_at_ms < (recent.day + 1) * 86400000) > :kept
  and (select count(*) from session_history h
       where h.license_id = recent.license_id and h.sessions is null
         and h.ended_at_ms >= recent.day * 86400000
         and h.ended_at_ms < min((recent.day + 1) * 86400000, :until_ms)) > :first
limit :limit;
