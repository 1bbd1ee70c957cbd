-- The product with this slug, or else that of the oldest license, among the products in use of the usable licenses that
-- are bound to a domain, by the rules of licenses::check_usable and DomainBinding::at. Served by license_domain and
-- license_transfer_domain.
-- scan ok: of the licenses of one domain, once per handshake
-- :domain text, :slug text (null: of the oldest license), :now_ms integer (Unix ms)
select l.product_id
from (select license_id, product_id, state, valid_from_ms, valid_until_ms
      from licenses
      where domain = :domain and (transfer_until_ms is null or transfer_until_ms > :now_ms)
      union all
      select license_id, product_id, state, valid_from_ms, valid_until_ms
      from licenses
      where transfer_domain = :domain) l
cross join products p on p.product_id = l.product_id
where l.state = 'active' and l.valid_from_ms <= :now_ms and (l.valid_until_ms is null or l.valid_until_ms >= :now_ms)
  and p.archived_at_ms is null and (:slug is null or p.slug = :slug)
order by l.license_id
limit 1;
