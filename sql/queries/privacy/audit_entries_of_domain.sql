-- The audit entries about a domain itself. Served by audit_log_subject.
-- :domain text
select audit_id, at_ms, actor, source, action, subject, before, after, erased_at_ms
from audit_log
where subject = :domain and action between 'handshake.' and 'handshake/'
order by audit_id;
