-- The audit entries about a domain itself, without those from when a license on it belonged to another customer. Served by
-- audit_log_subject.
-- :domain text, :customer_id integer
select a.audit_id, a.at_ms, a.actor, a.source, a.action, a.subject, a.before, a.after, a.erased_at_ms
from audit_log a
where a.subject = :domain and a.action between 'handshake.' and 'handshake/'
  and not exists (
      select 1 from licenses l
      where (l.domain = :domain or l.transfer_domain = :domain)
        and :customer_id is not coalesce(
            (select f.customer_id from former_owners f
             where f.license_id = l.license_id and f.until_ms > a.at_ms order by f.until_ms limit 1), l.customer_id))
order by a.audit_id;
