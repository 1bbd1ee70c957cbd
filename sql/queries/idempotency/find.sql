-- The stored response to a request, by the primary key. A response without a session must not be older than :since_ms.
-- :license_id integer, :hardware_id, :operation, :idempotency_key text, :since_ms integer (Unix ms)
select answer, session_id
from idempotent_answers
where license_id = :license_id and hardware_id = :hardware_id and operation = :operation
  and idempotency_key = :idempotency_key
  and (session_id is not null or at_ms >= :since_ms);
