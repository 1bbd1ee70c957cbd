-- Sets the preferences of an administrator. Served by the primary key.
-- :admin_id integer, :language text (null: the browser's language), :time_zone text (null: the shop's), :single_keys integer
update admins
set language = :language, time_zone = :time_zone, single_keys = :single_keys
where admin_id = :admin_id;
