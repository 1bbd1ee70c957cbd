-- The licenses that a domain has to do with, as the old or the new one. By license_domain and license_transfer_domain.
-- :domain text
select license_id, domain, transfer_domain, transfer_until_ms, transfer_confirmed_at_ms
from licenses
where domain = :domain
union all
select license_id, domain, transfer_domain, transfer_until_ms, transfer_confirmed_at_ms
from licenses
where transfer_domain = :domain
limit 100;
