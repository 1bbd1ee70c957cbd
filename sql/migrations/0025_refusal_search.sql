-- The search index of what is gone: refused calls, and devices that an administrator released. As for customers, licenses and
-- devices, each row has one here with the same id, kept by triggers.

create virtual table refusal_texts using fts5(
    name, fingerprint, domain,
    tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0
);
-- By the id of the entry in the audit log, which is all that is left of such a device.
create virtual table released_texts using fts5(
    name, fingerprint,
    tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0
);
insert into refusal_texts (refusal_texts, rank) values ('pgsz', 1000), ('automerge', 0), ('crisismerge', 64);
insert into released_texts (released_texts, rank) values ('pgsz', 1000), ('automerge', 0), ('crisismerge', 64);

insert into refusal_texts (rowid, name, fingerprint, domain)
select refusal_id, indexed(machine_id), indexed(hardware_id), indexed_domain(domain) from refusals;
insert into released_texts (rowid, name, fingerprint)
select audit_id, indexed(coalesce(json_extract(before, '$.machine_id'), '')),
       indexed(coalesce(json_extract(before, '$.hardware_id'), ''))
from audit_log where action = 'devices.release' and json_valid(before);

insert into refusal_texts (refusal_texts) values ('optimize');
insert into released_texts (released_texts) values ('optimize');
insert into refusal_texts (refusal_texts, rank) values ('automerge', 8), ('crisismerge', 16), ('secure-delete', 1);
insert into released_texts (released_texts, rank) values ('automerge', 8), ('crisismerge', 16), ('secure-delete', 1);

-- A row of refused calls gets more of them, but no other texts.
create trigger refusal_texts_insert after insert on refusals
begin
    insert into refusal_texts (rowid, name, fingerprint, domain)
    values (new.refusal_id, indexed(new.machine_id), indexed(new.hardware_id), indexed_domain(new.domain));
end;
create trigger refusal_texts_delete after delete on refusals
begin
    delete from refusal_texts where rowid = old.refusal_id;
end;

create trigger released_texts_insert after insert on audit_log
when new.action = 'devices.release' and json_valid(new.before)
begin
    insert into released_texts (rowid, name, fingerprint)
    values (new.audit_id, indexed(coalesce(json_extract(new.before, '$.machine_id'), '')),
            indexed(coalesce(json_extract(new.before, '$.hardware_id'), '')));
end;
-- An entry changes when it is erased.
create trigger released_texts_update after update of before on audit_log when old.action = 'devices.release'
begin
    delete from released_texts where rowid = old.audit_id;
end;
