-- The products in use of the usable licenses that are bound to a domain, the product of the oldest license first, by the
-- rules of licenses::check_usable and DomainBinding::at. By license_domain and license_transfer_domain.
-- scan ok: of the licenses of one domain, which the indexes find
-- :domain text, :now_ms integer (Unix ms)
select l.product_id
from (select license_id, product_id, state, valid_from_ms, valid_until_ms
      from licenses
      where domain = :domain and (transfer_until_ms is null or transfer_until_ms > :now_ms)
      union all
      select license_id, product_id, state, valid_from_ms, valid_until_ms
      from licenses
      where transfer_domain = :domain) l
where l.state = 'active' and l.valid_from_ms <= :now_ms and (l.valid_until_ms is null or l.valid_until_ms >= :now_ms)
  and exists (select 1 from products p where p.product_id = l.product_id and p.archived_at_ms is null)
group by l.product_id
order by min(l.license_id);
