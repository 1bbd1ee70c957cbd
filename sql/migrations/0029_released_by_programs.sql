-- The search index of released devices: also of those that their own programs released.

insert into released_texts (rowid, name, fingerprint)
select audit_id, indexed(coalesce(json_extract(before, '$.machine_id'), '')),
       indexed(coalesce(json_extract(before, '$.hardware_id'), ''))
from audit_log where action = 'devices.deactivate' and json_valid(before);

drop trigger released_texts_insert;
drop trigger released_texts_update;
create trigger released_texts_insert after insert on audit_log
when new.action in ('devices.release', 'devices.deactivate') and json_valid(new.before)
begin
    insert into released_texts (rowid, name, fingerprint)
    values (new.audit_id, indexed(coalesce(json_extract(new.before, '$.machine_id'), '')),
            indexed(coalesce(json_extract(new.before, '$.hardware_id'), '')));
end;
-- An entry changes when it is erased.
create trigger released_texts_update after update of before on audit_log
when old.action in ('devices.release', 'devices.deactivate')
begin
    delete from released_texts where rowid = old.audit_id;
end;
