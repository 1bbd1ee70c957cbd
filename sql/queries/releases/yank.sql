-- Withdraws a release. By the unique index on the version.
-- :version text
update releases set state = 'yanked' where version = :version;
