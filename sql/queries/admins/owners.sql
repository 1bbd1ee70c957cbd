-- The number of owners.
-- scan ok: few rows
select count(*) from admins where role = 'owner';
