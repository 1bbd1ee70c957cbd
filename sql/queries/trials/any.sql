-- Whether a product ever had a trial without a key. Served by trial_started.
-- :product_id integer
select exists (select 1 from trials where product_id = :product_id);
