-- How many releases there are.
-- scan ok: counts an index, a millisecond for ten thousand rows
select count(*) from releases;
