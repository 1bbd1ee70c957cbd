-- The number of licenses that are bound to a domain. By license_domain alone.
select count(*) from licenses where domain is not null;
