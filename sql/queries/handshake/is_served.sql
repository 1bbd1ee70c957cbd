-- Whether a license in use is on a domain: as licenses::standing judges it, and Bond::at. A domain may have
-- thousands of licenses: the first that fits is enough. By license_domain and license_transfer_domain.
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
