-- The responses stored for a license, for the person; without their text, which repeats the license and holds tokens. By
-- the primary key.
-- :license_id integer
select hardware_id, operation, idempotency_key, at_ms
from idempotent_answers where license_id = :license_id order by at_ms;
