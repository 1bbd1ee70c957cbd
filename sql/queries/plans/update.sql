-- Changes what a plan gives. Served by the primary key.
-- named as the columns
update plans
set name = :name, kind = :kind, device_limit = :device_limit, term_days = :term_days, term_starts = :term_starts,
    features = :features, updates_days = :updates_days
where plan_id = :plan_id;
