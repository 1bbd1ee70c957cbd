-- How many entries of a module match a filter, of which null matches every value. No more than :limit are counted.
-- Served by audit_log_module.
-- :actor, :module, :subject text, :since_ms integer (Unix ms), :limit integer
select count(*) from (
    select 1 from audit_log
    where substr(action, 1, instr(action, '.') - 1) = :module
      and (:actor is null or actor = :actor)
      and (:subject is null or subject = :subject)
      and (:since_ms is null or at_ms >= :since_ms)
    limit :limit);
