-- The default language that was chosen at the set-up; null if it was not asked for.
select default_language from server_state where id = 1;
