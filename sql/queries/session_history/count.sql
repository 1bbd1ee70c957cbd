-- How many rows end in a span. No more than :limit are counted. Served by session_history_ended.
-- :from_ms, :until_ms integer (Unix ms), :limit integer
-- scan ok: up to the limit
select count(*) from (
    select 1 from session_history
    where ended_at_ms between :from_ms and :until_ms
    limit :limit);
