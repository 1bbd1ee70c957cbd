-- Deletes sessions that ended before :before_ms, the oldest first. Served by session_history_ended.
-- :before_ms integer (Unix ms), :limit integer
delete from session_history
where session_id in (
    select session_id from session_history where ended_at_ms < :before_ms order by ended_at_ms limit :limit);
