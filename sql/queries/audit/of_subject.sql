-- The newest entries about a subject, with actions in a range. Served by audit_log_subject.
-- :subject text, :action_from text, :action_to text, :limit integer
select audit_id, at_ms, actor, source, action, subject, before, after, erased_at_ms
from audit_log
where subject = :subject and action between :action_from and :action_to
order by audit_id desc
limit :limit;
