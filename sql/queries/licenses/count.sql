-- How many licenses there are, as the triggers of licenses counted them.
-- :product_id integer (null: any)
-- scan ok: a row for each product
select coalesce(sum(licenses), 0) from license_counts where :product_id is null or product_id = :product_id;
