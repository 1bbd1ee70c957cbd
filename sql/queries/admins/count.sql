-- The number of administrators.
-- scan ok: few rows
select count(*) from admins;
