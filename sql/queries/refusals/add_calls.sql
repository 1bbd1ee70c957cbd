-- Adds equal calls to a row, unless it was deleted meanwhile: its id may have been given to another one. Served by the
-- primary key.
-- :refusal_id, :calls integer, :at_ms, :last_at_ms integer (Unix ms), :code text
update refusals set calls = calls + :calls, last_at_ms = max(last_at_ms, :last_at_ms)
where refusal_id = :refusal_id and at_ms = :at_ms and code = :code;
