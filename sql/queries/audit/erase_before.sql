-- Erases what the entries from before :before_ms say, the oldest first; as `erase` does. Served by audit_log_standing.
-- :before_ms, :now_ms integer (Unix ms), :limit integer
update audit_log
set salt = x'', actor = '', source = '', subject = '', before = '', after = '', erased_at_ms = :now_ms,
    payload_hash = case payload_hash when digest_of(salt, actor, source, subject, before, after) then payload_hash
                                     else zeroblob(32) end
where audit_id in (
    select audit_id from audit_log
    where erased_at_ms is null and at_ms < :before_ms and action not in ('customers.erase', 'audit.expire')
    order by at_ms limit :limit);
