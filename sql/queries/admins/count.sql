-- How many administrators there are.
-- scan ok: a handful
select count(*) from admins;
