-- A page of entries newer than one, oldest first. A filter that is null matches every value.
-- :audit_id integer, :actor text, :action_from text, :action_to text, :subject text, :since_ms integer (Unix ms),
-- :limit integer
-- scan ok: by the primary key, up to the limit
select audit_id, at_ms, actor, source, action, subject, before, after, erased_at_ms
from audit_log
where audit_id > :audit_id
  and (:actor is null or actor = :actor)
  and (:action_from is null or action between :action_from and :action_to)
  and (:subject is null or subject = :subject)
  and (:since_ms is null or at_ms >= :since_ms)
order by audit_id asc
limit :limit;
