-- What an administrator likes. By the primary key.
-- :admin_id integer, :language text (null: as the browser says), :single_keys integer
update admins set language = :language, single_keys = :single_keys where admin_id = :admin_id;
