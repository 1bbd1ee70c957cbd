-- Archives a plan. Served by the primary key.
-- :plan_id integer, :now_ms integer (Unix ms)
update plans set archived_at_ms = :now_ms where plan_id = :plan_id;
