-- Filters of the panel's lists that administrators saved under a name, each for themselves.
create table saved_filters (
    saved_filter_id integer primary key,
    admin_id        integer not null references admins (admin_id) on delete cascade,
    list            text not null check (length(list) between 1 and 40),     -- a word of saved_filters::LISTS
    name            text not null check (length(name) between 1 and 40),
    query           text not null check (length(query) between 1 and 1000),  -- the query of the list's URL, without a page
    unique (admin_id, list, name)
) strict;
