-- What a password is checked against. Served by the unique index of the name.
-- :name text
select password_hash from admins where name = :name;
