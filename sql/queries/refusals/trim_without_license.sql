-- Deletes all but the latest :keep rows without a license. Served by refusal_without_license.
-- :keep integer
delete from refusals
where license_id is null
  and at_ms <= (select at_ms from refusals where license_id is null order by at_ms desc limit 1 offset :keep);
