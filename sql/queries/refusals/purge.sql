-- Deletes some of the rows that are older than they may be. Served by refusal_at.
-- :before_ms integer (Unix ms), :limit integer
delete from refusals
where refusal_id in (select refusal_id from refusals where at_ms < :before_ms order by at_ms limit :limit);
