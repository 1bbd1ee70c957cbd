-- Deletes all but the latest :keep rows without a license that come from a network. Served by refusal_network.
-- :network text, :keep integer
delete from refusals
where license_id is null and network = :network
  and at_ms <= (select at_ms from refusals where license_id is null and network = :network
                order by at_ms desc limit 1 offset :keep);
