-- Whether a license of another customer, or of none, is bound to a domain or is being transferred to it. Served by
-- license_domain and license_transfer_domain.
-- :domain text, :customer_id integer
select exists (select 1 from licenses where domain = :domain and customer_id is not :customer_id)
    or exists (select 1 from licenses where transfer_domain = :domain and customer_id is not :customer_id);
