-- How many licenses are on a domain. By license_domain alone.
select count(*) from licenses where domain is not null;
