-- How many of the ended sessions with a row of their own started in a time span: all rows, counted in
-- session_history_started alone, minus the few folded ones.
-- :after_ms, :until_ms integer (Unix ms; excluded, included)
select (select count(*) from session_history where started_at_ms > :after_ms and started_at_ms <= :until_ms)
     - (select count(*) from session_history indexed by session_history_folded
        where sessions is not null and ended_at_ms > :after_ms
          and started_at_ms > :after_ms and started_at_ms <= :until_ms);
