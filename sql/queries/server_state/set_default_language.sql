-- Stores the default language.
-- :language text (de or en)
update server_state set default_language = :language where id = 1;
