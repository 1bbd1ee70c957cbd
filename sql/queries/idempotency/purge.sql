-- Deletes responses stored before :before_ms, unless their session still runs. Served by idempotent_answer_at.
-- :before_ms integer (Unix ms), :limit integer
delete from idempotent_answers
where (license_id, hardware_id, operation, idempotency_key) in (
    select license_id, hardware_id, operation, idempotency_key
    from idempotent_answers
    where at_ms < :before_ms
      and (session_id is null
           or not exists (select 1 from active_sessions s where s.session_id = idempotent_answers.session_id))
    limit :limit);
