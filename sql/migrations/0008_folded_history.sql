-- A license that starts sessions in a loop cannot fill the disk: of each day the first and the last sessions stay one
-- by one, and those between are counted in one row for each way to end.

-- How many sessions this row stands for: number, token and start are of the first of them, all else of the last.
-- Null: it is one session by itself.
alter table session_history add column sessions integer check (sessions >= 1);
