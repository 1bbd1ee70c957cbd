-- The language for programs and people whose own is neither German nor English, as chosen at the set-up; null: not asked.
alter table server_state add column default_language text check (default_language in ('de', 'en'));
