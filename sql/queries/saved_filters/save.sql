-- Saves a filter; replaces the one with the same name.
-- :admin_id integer, :list, :name, :query text
insert into saved_filters (admin_id, list, name, query)
values (:admin_id, :list, :name, :query)
on conflict (admin_id, list, name) do update set query = excluded.query;
