-- What lists and figures of a large shop need without reading all of it. Triggers keep it, whatever program writes. Only
-- activations and what administrators do change it, never a start, a heartbeat or an end.

-- How many device slots are taken.
alter table licenses add column taken integer not null default 0;
update licenses set taken = (select count(*) from devices d where d.license_id = licenses.license_id)
where license_id in (select license_id from devices);
create trigger slot_taken after insert on devices
begin
    update licenses set taken = taken + 1 where license_id = new.license_id;
end;
create trigger slot_freed after delete on devices
begin
    update licenses set taken = taken - 1 where license_id = old.license_id;
end;

-- By which customers are sorted: texts as sort_key gives them, and their number of licenses.
alter table customers add column licenses integer not null default 0;
alter table customers add column sort_name text not null default '';
alter table customers add column sort_company text not null default '';
alter table customers add column sort_email text not null default '';
update customers
set licenses = (select count(*) from licenses l where l.customer_id = customers.customer_id),
    sort_name = sort_key(name), sort_company = sort_key(company), sort_email = sort_key(email);
-- What is counted and sorted changes with the licenses of an erased customer.
drop trigger customer_stays_erased;
create trigger customer_stays_erased
before update of customer_id, name, email, company, note, created_at_ms, erased_at_ms on customers
when old.erased_at_ms is not null
begin
    select raise(abort, 'an erased customer stays erased');
end;
create index customer_name on customers (sort_name);
create index customer_company on customers (sort_company);
create index customer_email on customers (sort_email);
create index customer_licenses on customers (licenses);
create trigger customer_sorted after insert on customers
begin
    update customers
    set sort_name = sort_key(new.name), sort_company = sort_key(new.company), sort_email = sort_key(new.email)
    where customer_id = new.customer_id;
end;
create trigger customer_renamed after update of name, company, email on customers
when new.name <> old.name or new.company <> old.company or new.email <> old.email
begin
    update customers
    set sort_name = sort_key(new.name), sort_company = sort_key(new.company), sort_email = sort_key(new.email)
    where customer_id = new.customer_id;
end;

-- How many customers lists show: erased ones only with licenses.
create table customer_counts (
    id        integer primary key check (id = 1),
    customers integer not null
) strict;
insert into customer_counts (id, customers)
select 1, count(*) from customers where erased_at_ms is null or licenses > 0;
create trigger customer_added after insert on customers
begin
    update customer_counts set customers = customers + (new.erased_at_ms is null or new.licenses > 0);
end;
create trigger customer_removed after delete on customers
begin
    update customer_counts set customers = customers - (old.erased_at_ms is null or old.licenses > 0);
end;
create trigger customer_shown after update of erased_at_ms, licenses on customers
when (new.erased_at_ms is null or new.licenses > 0) <> (old.erased_at_ms is null or old.licenses > 0)
begin
    update customer_counts set customers = customers + iif(new.erased_at_ms is null or new.licenses > 0, 1, -1);
end;

-- Slots that were sold and that are taken, beside the number of licenses.
alter table license_counts add column slots integer not null default 0;
alter table license_counts add column taken integer not null default 0;
update license_counts
set (slots, taken) = (select sum(device_limit), sum(taken) from licenses l where l.product_id = license_counts.product_id)
where licenses > 0;

-- Licenses that are neither suspended nor revoked, by the hour in which they end (hours since 1970-01-01, UTC; 9999999999:
-- without an end). So those that have expired or will soon are counted without a look at each of them.
create table term_counts (
    product_id integer not null,
    hour       integer not null,
    licenses   integer not null,
    bought     integer not null,  -- by a customer
    unused     integer not null,  -- no device has a slot
    primary key (product_id, hour)
) strict, without rowid;
insert into term_counts (product_id, hour, licenses, bought, unused)
select product_id, coalesce(valid_until_ms / 3600000, 9999999999), count(*), count(customer_id), sum(taken = 0)
from licenses where state = 'active'
group by 1, 2;

drop trigger license_added;
drop trigger license_removed;
drop trigger license_regrouped; -- licenses keep their product
create trigger license_added after insert on licenses
begin
    insert into license_counts (product_id, licenses, slots, taken)
    values (new.product_id, 1, new.device_limit, new.taken)
    on conflict do update set licenses = licenses + 1, slots = slots + excluded.slots, taken = taken + excluded.taken;
    insert into term_counts (product_id, hour, licenses, bought, unused)
    select new.product_id, coalesce(new.valid_until_ms / 3600000, 9999999999), 1, new.customer_id is not null, new.taken = 0
    where new.state = 'active'
    on conflict do update
    set licenses = licenses + 1, bought = bought + excluded.bought, unused = unused + excluded.unused;
    update customers set licenses = licenses + 1 where customer_id = new.customer_id;
end;
create trigger license_removed after delete on licenses
begin
    update license_counts
    set licenses = licenses - 1, slots = slots - old.device_limit, taken = taken - old.taken
    where product_id = old.product_id;
    update term_counts
    set licenses = licenses - 1, bought = bought - (old.customer_id is not null), unused = unused - (old.taken = 0)
    where old.state = 'active' and product_id = old.product_id
      and hour = coalesce(old.valid_until_ms / 3600000, 9999999999);
    delete from term_counts
    where licenses <= 0 and product_id = old.product_id and hour = coalesce(old.valid_until_ms / 3600000, 9999999999);
    update customers set licenses = licenses - 1 where customer_id = old.customer_id;
end;
create trigger license_changed after update of customer_id, state, device_limit, valid_until_ms, taken on licenses
when new.customer_id is not old.customer_id or new.state <> old.state or new.device_limit <> old.device_limit
     or new.valid_until_ms is not old.valid_until_ms or new.taken <> old.taken
begin
    update license_counts
    set slots = slots + new.device_limit - old.device_limit, taken = taken + new.taken - old.taken
    where product_id = new.product_id;
    update term_counts
    set licenses = licenses - 1, bought = bought - (old.customer_id is not null), unused = unused - (old.taken = 0)
    where old.state = 'active' and product_id = old.product_id
      and hour = coalesce(old.valid_until_ms / 3600000, 9999999999);
    insert into term_counts (product_id, hour, licenses, bought, unused)
    select new.product_id, coalesce(new.valid_until_ms / 3600000, 9999999999), 1, new.customer_id is not null, new.taken = 0
    where new.state = 'active'
    on conflict do update
    set licenses = licenses + 1, bought = bought + excluded.bought, unused = unused + excluded.unused;
    delete from term_counts
    where licenses <= 0 and product_id = old.product_id and hour = coalesce(old.valid_until_ms / 3600000, 9999999999);
end;
create trigger license_moved after update of customer_id on licenses when new.customer_id is not old.customer_id
begin
    update customers set licenses = licenses - 1 where customer_id = old.customer_id;
    update customers set licenses = licenses + 1 where customer_id = new.customer_id;
end;

-- The orders and the filters of the list of licenses.
drop index license_valid_until;
create index license_valid_until on licenses (valid_until_ms);
create index license_taken on licenses (taken);
create index license_unused on licenses (license_id) where state = 'active' and taken = 0;
-- Few: a new license begins when it is made.
create index license_future on licenses (valid_from_ms) where valid_from_ms > created_at_ms;
-- Now with the state, so that the newest ones that expired are found in it alone.
drop index license_expiry;
create index license_expiry on licenses (valid_until_ms, product_id, kind, revoked_at_ms, state, customer_id)
where valid_until_ms is not null;

drop view license_details;
create view license_details as
select l.license_id, l.license_key, l.product_id, l.plan_id, p.code as plan, l.customer_id,
       coalesce(c.name, '') as customer, coalesce(c.company, '') as company, coalesce(c.sort_name, '') as sort_name,
       l.kind, l.state, l.device_limit, l.taken, l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features,
       l.updates_until_ms, l.domain, l.note, l.created_at_ms
from licenses l
left join customers c on c.customer_id = l.customer_id
left join plans p on p.plan_id = l.plan_id;
