-- Deletes all but the latest :keep rows of a license. Served by refusal_license.
-- :license_id, :keep integer
delete from refusals
where license_id = :license_id
  and at_ms <= (select at_ms from refusals where license_id = :license_id order by at_ms desc limit 1 offset :keep);
