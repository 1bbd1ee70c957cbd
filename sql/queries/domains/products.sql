-- The products of the usable licenses that are bound to a domain, the product of the oldest license first, by the rules of
-- licenses::check_usable and DomainBinding::at. By license_domain and license_transfer_domain.
-- scan ok: of the licenses of one domain, once per handshake
-- :domain text, :now_ms integer (Unix ms)
select product_id
from (select license_id, product_id, state, valid_from_ms, valid_until_ms
      from licenses
      where domain = :domain and (transfer_until_ms is null or transfer_until_ms > :now_ms)
      union all
      select license_id, product_id, state, valid_from_ms, valid_until_ms
      from licenses
      where transfer_domain = :domain)
where state = 'active' and valid_from_ms <= :now_ms and (valid_until_ms is null or valid_until_ms >= :now_ms)
group by product_id
order by min(license_id);
