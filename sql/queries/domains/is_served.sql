-- Whether a usable license of a product in use is bound or being transferred to a domain, by the rules of
-- licenses::check_usable and DomainBinding::at. A domain may have thousands of licenses, so the query stops at the first
-- match. Served by license_domain and license_transfer_domain.
-- :domain text, :now_ms integer (Unix ms)
select exists (
    select 1 from licenses l
    where l.domain = :domain and (l.transfer_until_ms is null or l.transfer_until_ms > :now_ms)
      and l.state = 'active' and l.valid_from_ms <= :now_ms
      and (l.valid_until_ms is null or l.valid_until_ms >= :now_ms)
      and exists (select 1 from products p where p.product_id = l.product_id and p.archived_at_ms is null)
) or exists (
    select 1 from licenses l
    where l.transfer_domain = :domain
      and l.state = 'active' and l.valid_from_ms <= :now_ms
      and (l.valid_until_ms is null or l.valid_until_ms >= :now_ms)
      and exists (select 1 from products p where p.product_id = l.product_id and p.archived_at_ms is null)
);
