-- A filter of this administrator. Served by the primary key.
-- :admin_id, :saved_filter_id integer
select saved_filter_id, list, name, query
from saved_filters
where saved_filter_id = :saved_filter_id and admin_id = :admin_id;
