-- Rows of some licenses, in no order that counts. Served by refusal_license.
-- :licenses text (JSON array), :limit integer
select r.refusal_id
from json_each(:licenses) i
cross join refusals r on r.license_id = i.value
limit :limit;
