-- The search index: every sequence of three characters in what is searched for. Each row of customers, licenses and
-- devices has one here with the same id, kept by triggers, whoever writes. Texts are stored as searches compare them
-- (`indexed`), so that case, composed letters and ß need no thought here.
-- Without positions (detail = none) it is a third as large; queries compare the stored text after the index.

create virtual table customer_texts using fts5(
    name, company, email, note,
    tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0
);
-- License keys are upper case and so no trigram of a text; `product` is a mark of private characters.
create virtual table license_texts using fts5(
    license_key, domain, note, product,
    tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0
);
create virtual table device_texts using fts5(
    name, fingerprint, product,
    tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0
);

-- Small pages and rare merges: what a write merges takes some milliseconds at most. Here nothing is merged until the end.
insert into customer_texts (customer_texts, rank) values ('pgsz', 1000), ('automerge', 0), ('crisismerge', 64);
insert into license_texts (license_texts, rank) values ('pgsz', 1000), ('automerge', 0), ('crisismerge', 64);
insert into device_texts (device_texts, rank) values ('pgsz', 1000), ('automerge', 0), ('crisismerge', 64);

insert into customer_texts (rowid, name, company, email, note)
select customer_id, indexed(name), indexed(company), indexed(email), indexed(note) from customers;
insert into license_texts (rowid, license_key, domain, note, product)
select license_id, license_key, indexed_domain(coalesce(domain, '')) || indexed_domain(coalesce(transfer_domain, '')),
       indexed(note), char(57344) || product_id || char(57345)
from licenses;
insert into device_texts (rowid, name, fingerprint, product)
select d.device_id, indexed(d.machine_id), indexed(d.hardware_id), char(57344) || l.product_id || char(57345)
from devices d join licenses l on l.license_id = d.license_id;

insert into customer_texts (customer_texts) values ('optimize');
insert into license_texts (license_texts) values ('optimize');
insert into device_texts (device_texts) values ('optimize');
-- What is deleted leaves the index at once, so that nothing of an erased person stays in it.
insert into customer_texts (customer_texts, rank) values ('automerge', 8), ('crisismerge', 16), ('secure-delete', 1);
insert into license_texts (license_texts, rank) values ('automerge', 8), ('crisismerge', 16), ('secure-delete', 1);
insert into device_texts (device_texts, rank) values ('automerge', 8), ('crisismerge', 16), ('secure-delete', 1);

create trigger customer_texts_insert after insert on customers
begin
    insert into customer_texts (rowid, name, company, email, note)
    values (new.customer_id, indexed(new.name), indexed(new.company), indexed(new.email), indexed(new.note));
end;
create trigger customer_texts_update after update of name, company, email, note on customers
when new.name <> old.name or new.company <> old.company or new.email <> old.email or new.note <> old.note
begin
    update customer_texts
    set name = indexed(new.name), company = indexed(new.company), email = indexed(new.email), note = indexed(new.note)
    where rowid = new.customer_id;
end;
create trigger customer_texts_delete after delete on customers
begin
    delete from customer_texts where rowid = old.customer_id;
end;

create trigger license_texts_insert after insert on licenses
begin
    insert into license_texts (rowid, license_key, domain, note, product)
    values (new.license_id, new.license_key,
            indexed_domain(coalesce(new.domain, '')) || indexed_domain(coalesce(new.transfer_domain, '')),
            indexed(new.note), char(57344) || new.product_id || char(57345));
end;
create trigger license_texts_update after update of license_key, domain, transfer_domain, note on licenses
when new.license_key <> old.license_key or new.note <> old.note or new.domain is not old.domain
     or new.transfer_domain is not old.transfer_domain
begin
    update license_texts
    set license_key = new.license_key, note = indexed(new.note),
        domain = indexed_domain(coalesce(new.domain, '')) || indexed_domain(coalesce(new.transfer_domain, ''))
    where rowid = new.license_id;
end;
create trigger license_texts_delete after delete on licenses
begin
    delete from license_texts where rowid = old.license_id;
end;

create trigger device_texts_insert after insert on devices
begin
    insert into device_texts (rowid, name, fingerprint, product)
    select new.device_id, indexed(new.machine_id), indexed(new.hardware_id), char(57344) || l.product_id || char(57345)
    from licenses l where l.license_id = new.license_id;
end;
create trigger device_texts_update after update of machine_id, hardware_id on devices
when new.machine_id <> old.machine_id or new.hardware_id <> old.hardware_id
begin
    update device_texts set name = indexed(new.machine_id), fingerprint = indexed(new.hardware_id)
    where rowid = new.device_id;
end;
create trigger device_texts_delete after delete on devices
begin
    delete from device_texts where rowid = old.device_id;
end;
