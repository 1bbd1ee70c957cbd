-- Takes a release back. Served by the version's own index.
-- :version text
update releases set state = 'yanked' where version = :version;
