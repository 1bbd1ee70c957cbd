-- How many sessions have not ended, as triggers counted them: also those that have timed out and await the sweep.
-- :product_id integer (0: all products together)
select coalesce((select running from running_counts where product_id = :product_id), 0);
