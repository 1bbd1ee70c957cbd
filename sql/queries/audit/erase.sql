-- Erases what an entry says; its hash stays. One that was altered gets the hash that nothing has, so that erasing it
-- does not make it look sound. One about an erasure stays: it accounts for the entries that were erased. Served by the
-- primary key.
-- :audit_id integer, :now_ms integer (Unix ms)
update audit_log
set salt = x'', actor = '', source = '', subject = '', before = '', after = '', erased_at_ms = :now_ms,
    payload_hash = case payload_hash when digest_of(salt, actor, source, subject, before, after) then payload_hash
                                     else zeroblob(32) end
where audit_id = :audit_id and erased_at_ms is null and action not in ('customers.erase', 'audit.expire');
