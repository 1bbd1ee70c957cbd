-- The folded rows, which stand for several sessions, whose last session ended after :after_ms. Served by
-- session_history_folded.
-- :after_ms integer (Unix ms)
select started_at_ms, ended_at_ms, ran_ms from session_history indexed by session_history_folded
where sessions is not null and ended_at_ms > :after_ms and ran_ms is not null;
