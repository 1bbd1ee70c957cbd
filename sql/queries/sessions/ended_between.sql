-- How many sessions ended in a span. Counted in session_history_ended alone.
-- :after_ms, :until_ms integer (Unix ms)
select count(*) from session_history where ended_at_ms > :after_ms and ended_at_ms <= :until_ms;
