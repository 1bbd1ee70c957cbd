-- A person can be erased, and the audit log stays provable: the chain runs over the hash of what an entry says, so that
-- this can be erased while the hash stays. Entries that stand are verified while they are carried over: one that was
-- altered keeps a hash that nothing has, so that `check` still reports it.

create table new_audit_log (
    audit_id     integer primary key,
    at_ms        integer not null,
    action       text not null,       -- <module>.<verb>
    -- What it says, which can be erased.
    salt         blob not null,       -- random, so that no guess can be compared with an erased entry
    actor        text not null,       -- an administrator's name, 'command line', 'server', or 'site' and a domain
    source       text not null,       -- an address, or the operating system's user
    subject      text not null,       -- what it was done to
    before       text not null,       -- JSON
    after        text not null,       -- JSON
    payload_hash blob not null check (length(payload_hash) = 32),
    erased_at_ms integer              -- null: it stands
                 check (erased_at_ms is null
                        or (length(salt) = 0 and actor = '' and source = '' and subject = '' and before = '' and after = '')),
    hash         blob not null check (length(hash) = 32)  -- over the one before, id, time, action and payload_hash
) strict;
insert into new_audit_log (audit_id, at_ms, action, salt, actor, source, subject, before, after, payload_hash, hash)
select audit_id, at_ms, action, randomblob(16), actor, source, subject, before, after, zeroblob(32), hash
from audit_log order by audit_id;
update new_audit_log as e
set payload_hash = digest_of(salt, actor, source, subject, before, after)
where hash = digest_of(coalesce((select p.hash from audit_log p where p.audit_id = e.audit_id - 1), zeroblob(32)),
                       audit_id, at_ms, actor, source, action, subject, before, after);
with recursive chain (audit_id, hash) as (
    select 0, zeroblob(32)
    union all
    select e.audit_id, digest_of(c.hash, e.audit_id, e.at_ms, e.action, e.payload_hash)
    from chain c
    join new_audit_log e on e.audit_id = (select min(n.audit_id) from new_audit_log n where n.audit_id > c.audit_id)
)
update new_audit_log set hash = chain.hash from chain where chain.audit_id = new_audit_log.audit_id;
-- A head that does not belong to the last entry stays wrong.
update audit_head
set hash = (select n.hash from new_audit_log n where n.audit_id = audit_head.audit_id)
where exists (select 1 from audit_log o where o.audit_id = audit_head.audit_id and o.hash = audit_head.hash);
drop table audit_log;
alter table new_audit_log rename to audit_log;
create index audit_log_subject on audit_log (subject, audit_id);
-- Those that can still be erased, by age.
create index audit_log_standing on audit_log (at_ms) where erased_at_ms is null;

alter table customers add column erased_at_ms integer;  -- null: not erased
create trigger customer_stays_erased before update on customers when old.erased_at_ms is not null
begin
    select raise(abort, 'an erased customer stays erased');
end;
create trigger erased_customer_stays before delete on customers when old.erased_at_ms is not null
begin
    select raise(abort, 'the row of an erased customer stays');
end;

-- Every customer that was erased, also of later copies of the database: a restored one lacks the erasure, or the
-- customer. Nothing in it names a person. Once more in the file `….erased` beside the database.
create table erased_customers (
    customer_id   integer not null,
    created_at_ms integer not null,   -- of the customer: after a restore, another customer may get the id
    erased_at_ms  integer not null,
    licenses      text not null check (licenses in ('revoke', 'keep')),
    primary key (customer_id, created_at_ms)
) strict, without rowid;
