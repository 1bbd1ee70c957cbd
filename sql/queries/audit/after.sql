-- The entries after one, oldest first, to verify the hashes.
-- :audit_id integer, :limit integer
select audit_id, at_ms, actor, source, action, subject, before, after, erased_at_ms, salt, payload_hash,
       hash
from audit_log
where audit_id > :audit_id
order by audit_id
limit :limit;
