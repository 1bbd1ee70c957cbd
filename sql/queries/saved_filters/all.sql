-- Every filter of every administrator.
-- scan ok: a few dozen, when a customer is erased
select saved_filter_id, list, name, query from saved_filters;
