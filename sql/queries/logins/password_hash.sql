-- The password hash of an administrator. Served by the unique index on the name.
-- :name text
select password_hash from admins where name = :name;
