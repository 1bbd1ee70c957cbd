-- Rows of the log after one, the earliest first.
-- :audit_id integer, :actor text, :deed_from text, :deed_to text, :subject text, :since_ms integer (Unix ms),
-- :limit integer; null: whatever it is
-- scan ok: by the primary key, as far as the limit
select audit_id, at_ms, actor, source, deed, subject, before, after
from audit_log
where audit_id > :audit_id
  and (:actor is null or actor = :actor)
  and (:deed_from is null or deed between :deed_from and :deed_to)
  and (:subject is null or subject = :subject)
  and (:since_ms is null or at_ms >= :since_ms)
order by audit_id asc
limit :limit;
