-- How many of the sessions that ended started in a span. Counted in session_history_started alone.
-- :after_ms, :until_ms integer (Unix ms)
select count(*) from session_history where started_at_ms > :after_ms and started_at_ms <= :until_ms;
