-- The entries older than one, newest first.
-- :actor, :module, :subject text, :since_ms integer (Unix ms) (of those, null matches every value), :audit_id, :limit
-- integer
-- scan ok: by the primary key, up to the limit
select audit_id, at_ms, actor, source, action, subject, before, after, erased_at_ms
from audit_log
where audit_id < :audit_id
  and (:actor is null or actor = :actor)
  and (:module is null or substr(action, 1, instr(action, '.') - 1) = :module)
  and (:subject is null or subject = :subject)
  and (:since_ms is null or at_ms >= :since_ms)
order by audit_id desc
limit :limit;
