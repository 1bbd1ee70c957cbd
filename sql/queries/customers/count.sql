-- How many customers there are.
-- scan ok: counted in an index, a millisecond for ten thousand
select count(*) from customers;
