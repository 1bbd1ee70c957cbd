-- Whether a usable license is bound or being transferred to a domain, by the rules of licenses::check_usable and
-- DomainBinding::at. A domain may have thousands of licenses, so the query stops at the first match. By license_domain and
-- license_transfer_domain.
-- :domain text, :now_ms integer (Unix ms)
select exists (
    select 1 from licenses
    where domain = :domain and (transfer_until_ms is null or transfer_until_ms > :now_ms)
      and state = 'active' and valid_from_ms <= :now_ms and (valid_until_ms is null or valid_until_ms >= :now_ms)
) or exists (
    select 1 from licenses
    where transfer_domain = :domain
      and state = 'active' and valid_from_ms <= :now_ms and (valid_until_ms is null or valid_until_ms >= :now_ms)
);
