-- How many licenses there are.
-- scan ok: counted in an index, a millisecond for ten thousand rows
select count(*) from licenses;
