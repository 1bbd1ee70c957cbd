-- Stores a response, in place of one to an earlier request with the same key, if any.
-- :license_id integer, :hardware_id, :operation, :idempotency_key, :answer text, :session_id integer or null,
-- :now_ms integer (Unix ms)
insert or replace into idempotent_answers
    (license_id, hardware_id, operation, idempotency_key, answer, session_id, at_ms)
values (:license_id, :hardware_id, :operation, :idempotency_key, :answer, :session_id, :now_ms);
