-- How many sessions run, or have run out and were not noticed yet.
-- scan ok: counted over the smallest index, for a person
select count(*) from active_sessions;
