-- The filters that an administrator saved for a list, by name. Served by the unique index.
-- :admin_id integer, :list text
select saved_filter_id, list, name, query
from saved_filters
where admin_id = :admin_id and list = :list
order by name;
