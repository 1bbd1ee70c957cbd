-- Withdraws a release. Served by the unique index on product and version.
-- :product_id integer, :version text
update releases set state = 'yanked' where product_id = :product_id and version = :version;
