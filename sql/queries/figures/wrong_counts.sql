-- The counts that triggers keep and that are not what they count, by table or column. Reads every license, device and
-- session.
-- scan ok: once per check
select 'licenses.taken' as name where exists (
    select 1 from licenses l where l.taken <> (select count(*) from devices d where d.license_id = l.license_id))
union all
select 'license_counts' where exists (
    select product_id, count(*), sum(device_limit), sum(taken) from licenses group by product_id
    except select product_id, licenses, slots, taken from license_counts)
union all
select 'term_counts' where exists (
    select product_id, coalesce(valid_until_ms / 3600000, 9999999999), count(*), count(customer_id), sum(taken = 0)
    from licenses where state = 'active' group by 1, 2
    except select product_id, hour, licenses, bought, unused from term_counts)
    or (select coalesce(sum(licenses), 0) from term_counts) <> (select count(*) from licenses where state = 'active')
union all
select 'customers.licenses' where exists (
    select 1 from customers c
    where c.licenses <> (select count(*) from licenses l where l.customer_id = c.customer_id))
union all
select 'customers.sort_name' where exists (
    select 1 from customers
    where sort_name <> sort_key(name) or sort_company <> sort_key(company) or sort_email <> sort_key(email))
union all
select 'customer_counts' where (select customers from customer_counts) <>
    (select count(*) from customers where erased_at_ms is null or licenses > 0)
union all
select 'running_counts' where exists (
    select 1 from running_counts r
    where r.running <> (select count(*) from active_sessions s join licenses l on l.license_id = s.license_id
                        where r.product_id in (0, l.product_id)))
union all
select 'version_counts' where exists (
    select l.product_id, d.last_seen_at_ms / 86400000, d.client_version, count(*)
    from devices d join licenses l on l.license_id = d.license_id group by 1, 2, 3
    except select product_id, day, client_version, devices from version_counts)
    or (select coalesce(sum(devices), 0) from version_counts) <> (select count(*) from devices);
