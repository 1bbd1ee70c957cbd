-- The latest rows about one thing. Served by audit_log_subject.
-- :subject text, :deed_from text, :deed_to text, :limit integer
select audit_id, at_ms, actor, source, deed, subject, before, after
from audit_log
where subject = :subject and deed between :deed_from and :deed_to
order by audit_id desc
limit :limit;
