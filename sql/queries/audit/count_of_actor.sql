-- How many entries by an actor match a filter, of which null matches every value. No more than :limit are counted.
-- Served by audit_log_actor.
-- :actor, :module, :subject text, :since_ms integer (Unix ms), :limit integer
select count(*) from (
    select 1 from audit_log
    where actor = :actor
      and (:module is null or substr(action, 1, instr(action, '.') - 1) = :module)
      and (:subject is null or subject = :subject)
      and (:since_ms is null or at_ms >= :since_ms)
    limit :limit);
