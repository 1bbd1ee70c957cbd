-- The newest licenses of a range that are suspended or revoked. Served by license_out_of_use.
-- :low, :high integer (license_id, both included), :product_id integer (null: any), :limit integer
select license_id from (
    select l.license_id
    from licenses l indexed by license_out_of_use
    where l.state <> 'active'
      and l.license_id between :low and :high
      and (:product_id is null or l.product_id = :product_id)
    order by l.license_id desc
    limit :limit);
