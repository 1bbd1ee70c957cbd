-- The chart of concurrent sessions counts a row for many sessions by the time that they ran, not from the first start
-- to the last end.

-- How long the sessions of a row with `sessions` ran in all. Null: one session by itself, or it is not known.
alter table session_history add column ran_ms integer check (ran_ms >= 0);
-- Few rows, and none where no license has very many sessions.
create index session_history_folded on session_history (ended_at_ms, started_at_ms) where sessions is not null;
