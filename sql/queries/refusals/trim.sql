-- Deletes all but the latest :keep rows. Served by refusal_at.
-- :keep integer
delete from refusals where at_ms <= (select at_ms from refusals order by at_ms desc limit 1 offset :keep);
