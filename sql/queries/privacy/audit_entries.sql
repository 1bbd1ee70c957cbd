-- The audit entries about a customer; about licenses while they belonged to the customer, their devices, domains and dry
-- runs; about licenses that were issued together, so that the subject is a range, or were given away, and the devices that they
-- had then; and about sessions
-- that an administrator ended, whose subject is the session. Erased entries say nothing any more, and the one
-- about an erasure accounts for them. An earlier customer may have had the same id.
-- :customer_id integer, :since_ms integer (Unix ms): when the customer was added
-- scan ok: for one person, a second for a million entries
with own (license_id) as (
    select license_id from licenses where customer_id = :customer_id
    union
    select license_id from former_owners where customer_id = :customer_id
)
select audit_id, at_ms, actor, source, action, subject, before, after, erased_at_ms
from audit_log
where erased_at_ms is null and audit_id in (
    select a.audit_id from audit_log a
    where a.subject = cast(:customer_id as text) and a.action between 'customers.' and 'customers/'
      and a.at_ms >= :since_ms and a.action <> 'customers.erase'
    union
    select a.audit_id
    from own
    cross join audit_log a on a.subject = cast(own.license_id as text)
    where (a.action between 'licenses.' and 'licenses/' or a.action between 'devices.' and 'devices/'
           or a.action between 'handshake.' and 'handshake/' or a.action between 'integrate.' and 'integrate/'
           or a.action between 'domains.' and 'domains/' or a.action between 'trials.' and 'trials/')
      and :customer_id = coalesce(
          (select f.customer_id from former_owners f
           where f.license_id = own.license_id and f.until_ms > a.at_ms order by f.until_ms limit 1),
          (select l.customer_id from licenses l where l.license_id = own.license_id))
    union
    select a.audit_id from audit_log a
    where a.erased_at_ms is null and a.at_ms >= :since_ms
      and (a.action between 'licenses.' and 'licenses/' or a.action = 'devices.release')
      and (instr(a.before, '{"customer":' || :customer_id || ',') = 1
           or instr(a.after, '{"customer":' || :customer_id || ',') = 1)
    union
    select a.audit_id
    from audit_log a
    cross join own on own.license_id = cast(substr(a.before, length('{"license":') + 1) as integer)
    where a.action = 'sessions.terminate' and a.erased_at_ms is null
      and :customer_id = coalesce(
          (select f.customer_id from former_owners f
           where f.license_id = own.license_id and f.until_ms > a.at_ms order by f.until_ms limit 1),
          (select l.customer_id from licenses l where l.license_id = own.license_id))
)
order by audit_id;
