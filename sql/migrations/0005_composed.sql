-- Texts that people typed or pasted are stored composed (NFC): `u` and a combining diaeresis become `ü`.

update customers set name = composed(name), email = composed(email), company = composed(company), note = composed(note)
where name <> composed(name) or email <> composed(email) or company <> composed(company) or note <> composed(note);
update licenses set note = composed(note) where note <> composed(note);
update devices set machine_id = composed(machine_id) where machine_id <> composed(machine_id);
update releases set notes = composed(notes) where notes <> composed(notes);
update feature_flags set description = composed(description) where description <> composed(description);
update client_configs set client_name = composed(client_name) where client_name <> composed(client_name);
-- Two administrators whose names look the same stay two: the second keeps the spelling that it has.
update or ignore admins set name = composed(name) where name <> composed(name);
