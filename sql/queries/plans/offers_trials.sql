-- Whether a product issues its trials by this plan. Products have a handful of rows.
-- :plan_id integer
-- scan ok: one row a product, once when a plan is archived
select exists (select 1 from client_configs where trial_plan_id = :plan_id);
