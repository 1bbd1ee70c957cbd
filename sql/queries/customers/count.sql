-- How many customers there are.
-- scan ok: counts an index, a millisecond for ten thousand rows
select count(*) from customers;
