-- How many owners there are.
-- scan ok: a handful
select count(*) from admins where role = 'owner';
