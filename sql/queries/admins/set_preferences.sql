-- Sets the preferences of an administrator. Served by the primary key.
-- :admin_id integer, :language text (null: the browser's language), :single_keys integer
update admins set language = :language, single_keys = :single_keys where admin_id = :admin_id;
