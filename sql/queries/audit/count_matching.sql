-- How many entries match a filter, of which null matches every value. No more than :limit are counted.
-- :actor text, :action_from text, :action_to text, :subject text, :since_ms integer (Unix ms), :limit integer
-- scan ok: by the primary key, up to the limit
select count(*) from (
    select 1 from audit_log
    where (:actor is null or actor = :actor)
      and (:action_from is null or action between :action_from and :action_to)
      and (:subject is null or subject = :subject)
      and (:since_ms is null or at_ms >= :since_ms)
    limit :limit);
