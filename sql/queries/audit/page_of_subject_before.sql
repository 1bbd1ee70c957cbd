-- The entries about a subject older than one, newest first. Served by audit_log_subject.
-- :actor, :module, :subject text, :since_ms integer (Unix ms) (of those, null matches every value), :audit_id, :limit
-- integer
select audit_id, at_ms, actor, source, action, subject, before, after, erased_at_ms
from audit_log
where subject = :subject and audit_id < :audit_id
  and (:actor is null or actor = :actor)
  and (:module is null or substr(action, 1, instr(action, '.') - 1) = :module)
  and (:since_ms is null or at_ms >= :since_ms)
order by audit_id desc
limit :limit;
