-- Whether a license that never belonged to a customer is bound to a domain or is being transferred to it. Served by
-- license_domain and license_transfer_domain.
-- :domain text, :customer_id integer
select exists (
    select 1 from licenses l
    where (l.domain = :domain or l.transfer_domain = :domain) and l.customer_id is not :customer_id
      and not exists (select 1 from former_owners f
                      where f.license_id = l.license_id and f.customer_id = :customer_id));
