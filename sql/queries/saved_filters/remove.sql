-- Removes a filter. Served by the primary key.
-- :saved_filter_id integer
delete from saved_filters where saved_filter_id = :saved_filter_id;
