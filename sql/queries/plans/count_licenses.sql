-- How many licenses a plan would be applied to, and how many of them would be skipped, since more of their devices hold
-- a slot than the plan allows. Served by license_plan, and the devices of each license by their index.
-- :plan_id integer, :device_limit integer
select count(*) as licenses,
       coalesce(sum((select count(*) from devices d where d.license_id = l.license_id) > :device_limit), 0) as skipped
from licenses l
where l.plan_id = :plan_id and l.state <> 'revoked';
