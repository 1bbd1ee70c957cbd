-- Texts that people typed or pasted are stored composed (NFC): `u` and a combining diaeresis become `ü`.
-- Composing can also lengthen a text (U+0958 becomes two characters), or make two texts equal. A text that would break a
-- limit of its column by that keeps the spelling that it has: each column by itself, and `or ignore` leaves such a row.
-- This file was edited once, before it was in a release: before, it stopped at such a row and changed nothing.

update or ignore customers set name = composed(name) where name <> composed(name);
update or ignore customers set email = composed(email) where email <> composed(email);
update or ignore customers set company = composed(company) where company <> composed(company);
update or ignore customers set note = composed(note) where note <> composed(note);
update or ignore licenses set note = composed(note) where note <> composed(note);
update or ignore devices set machine_id = composed(machine_id) where machine_id <> composed(machine_id);
update or ignore releases set notes = composed(notes) where notes <> composed(notes);
update or ignore feature_flags set description = composed(description) where description <> composed(description);
update or ignore client_configs set client_name = composed(client_name) where client_name <> composed(client_name);
-- Two administrators whose names look the same stay two: the second keeps the spelling that it has.
update or ignore admins set name = composed(name) where name <> composed(name);
