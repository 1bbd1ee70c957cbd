-- How many licenses have a transfer in progress. No more than :limit are counted. Served by license_transfer_until.
-- :product_id integer (null: any), :limit integer
select count(*) from (
    select 1
    from licenses
    where transfer_until_ms is not null and (:product_id is null or product_id = :product_id)
    limit :limit);
