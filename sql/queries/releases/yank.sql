-- Takes a release back.
-- :version text
update releases set state = 'yanked' where version = :version and state = 'released';
