-- Several products, each with its own settings, API keys, feature flags and releases; and plans, by which licenses are
-- sold. What stands in the database belongs to the first product. Runs without foreign keys, since `licenses` is
-- replaced; they are checked before the commit.

create table products (
    product_id     integer primary key,
    slug           text not null unique   -- in addresses and commands; stays after the product was archived
                   check (length(slug) between 1 and 40 and slug not glob '*[^a-z0-9-]*' and slug not glob '-*'),
    created_at_ms  integer not null,
    archived_at_ms integer                -- null: in use
) strict;
insert into products (product_id, slug, created_at_ms)
select 1, slug_of(client_name), updated_at_ms from client_configs;

create trigger product_stays before delete on products
begin
    select raise(abort, 'a product is archived, never deleted');
end;
create trigger product_stays_archived before update of archived_at_ms on products
when old.archived_at_ms is not null
begin
    select raise(abort, 'an archived product stays archived');
end;

create table plans (
    plan_id        integer primary key,
    product_id     integer not null references products (product_id),
    code           text not null
                   check (length(code) between 1 and 40 and code not glob '*[^a-z0-9-]*' and code not glob '-*'),
    name           text not null check (length(name) between 1 and 100),
    kind           text not null check (kind in ('full', 'trial')),
    device_limit   integer not null check (device_limit between 1 and 100000),
    term_days      integer check (term_days between 1 and 36500),       -- null: for ever
    term_starts    text not null check (term_starts in ('issue', 'first_activation')),
    features       text not null check (length(features) <= 2050),      -- sorted, separated by spaces
    updates_days   integer check (updates_days between 1 and 36500),    -- null: for ever
    created_at_ms  integer not null,
    archived_at_ms integer,                                             -- null: may be sold
    unique (product_id, code),
    unique (product_id, plan_id),
    check (term_starts = 'issue' or term_days is not null)
) strict;

create table new_client_configs (
    product_id         integer primary key references products (product_id),
    client_name        text not null check (length(client_name) between 1 and 100),
    api_key            text not null unique check (length(api_key) >= 20),
    heartbeat_interval integer not null check (heartbeat_interval between 1 and 3600),
    session_timeout    integer not null check (session_timeout > heartbeat_interval and session_timeout <= 86400),
    current_version    text not null check (length(current_version) between 5 and 20),
    minimum_version    text not null check (length(minimum_version) between 5 and 20),
    session_policy     text not null check (session_policy in ('reject', 'replace_same_device', 'replace')),
    offline_days       integer not null default 0 check (offline_days between 0 and 90),
    trial_plan_id      integer,            -- null: no trials without a key
    reviewed           integer not null default 0 check (reviewed in (0, 1)),
    updated_at_ms      integer not null,
    foreign key (product_id, trial_plan_id) references plans (product_id, plan_id)
) strict;
insert into new_client_configs (product_id, client_name, api_key, heartbeat_interval, session_timeout, current_version,
                                minimum_version, session_policy, offline_days, reviewed, updated_at_ms)
select 1, client_name, api_key, heartbeat_interval, session_timeout, current_version,
       minimum_version, session_policy, offline_days, reviewed, updated_at_ms
from client_configs;
drop table client_configs;
alter table new_client_configs rename to client_configs;

-- Until the first review the name is a default, and so is the slug that was made of it.
create trigger slug_stays before update of slug on products
when new.slug <> old.slug and exists (select 1 from client_configs where product_id = old.product_id and reviewed = 1)
begin
    select raise(abort, 'the slug of a product never changes');
end;

create table new_retired_api_keys (
    api_key        text primary key,
    product_id     integer not null references products (product_id),
    valid_until_ms integer not null
) strict, without rowid;
insert into new_retired_api_keys (api_key, product_id, valid_until_ms)
select api_key, 1, valid_until_ms from retired_api_keys;
drop table retired_api_keys;
alter table new_retired_api_keys rename to retired_api_keys;
create index retired_api_key_product on retired_api_keys (product_id);

create table new_releases (
    release_id     integer primary key,
    product_id     integer not null references products (product_id),
    version        text not null check (length(version) between 5 and 20),
    channel        text not null check (length(channel) between 1 and 32),
    notes          text not null,
    download_url   text,
    sha256         text check (length(sha256) = 64),
    state          text not null check (state in ('released', 'yanked')),
    released_at_ms integer not null,
    unique (product_id, version)
) strict;
insert into new_releases (release_id, product_id, version, channel, notes, download_url, sha256, state, released_at_ms)
select release_id, 1, version, channel, notes, download_url, sha256, state, released_at_ms from releases;
drop table releases;
alter table new_releases rename to releases;

create table new_feature_flags (
    product_id    integer not null references products (product_id),
    name          text not null check (length(name) between 1 and 64),
    description   text not null,
    enabled       integer not null check (enabled in (0, 1)),
    share_percent integer not null check (share_percent between 0 and 100),
    updated_at_ms integer not null,
    primary key (product_id, name)
) strict, without rowid;
insert into new_feature_flags (product_id, name, description, enabled, share_percent, updated_at_ms)
select 1, name, description, enabled, share_percent, updated_at_ms from feature_flags;
drop table feature_flags;
alter table new_feature_flags rename to feature_flags;

create table new_licenses (
    license_id               integer primary key,
    license_key              text not null unique check (length(license_key) = 25), -- normalised: no hyphens, upper case
    product_id               integer not null references products (product_id),
    plan_id                  integer,           -- what it was sold as; null: no plan
    customer_id              integer references customers (customer_id),            -- null: a trial that nobody bought
    kind                     text not null check (kind in ('full', 'trial')),
    state                    text not null check (state in ('active', 'suspended', 'revoked')),
    device_limit             integer not null check (device_limit between 1 and 100000),
    valid_from_ms            integer not null,
    valid_until_ms           integer check (valid_until_ms >= valid_from_ms),       -- null: for ever, or not begun
    pending_days             integer check (pending_days between 1 and 36500),      -- begun by the first activation, which sets
                                                                                    -- valid_until_ms; null: has begun
    features                 text not null default '' check (length(features) <= 2050),  -- sorted, separated by spaces
    updates_until_ms         integer,           -- null: for ever
    domain                   text,
    note                     text not null default '',
    created_at_ms            integer not null,
    transfer_domain          text
                             check (transfer_domain is null or (domain is not null and domain <> transfer_domain)),
    transfer_until_ms        integer
                             check ((transfer_until_ms is null) = (transfer_domain is null)),
    transfer_confirmed_at_ms integer,           -- when the new domain registered itself
    foreign key (product_id, plan_id) references plans (product_id, plan_id),
    check (customer_id is not null or kind = 'trial'),
    check (pending_days is null or valid_until_ms is null)
) strict;
insert into new_licenses (license_id, license_key, product_id, customer_id, kind, state, device_limit, valid_from_ms,
                          valid_until_ms, domain, note, created_at_ms, transfer_domain, transfer_until_ms,
                          transfer_confirmed_at_ms)
select license_id, license_key, 1, customer_id, kind, state, device_limit, valid_from_ms,
       valid_until_ms, domain, note, created_at_ms, transfer_domain, transfer_until_ms,
       transfer_confirmed_at_ms
from licenses;
drop trigger device_slots;
drop table licenses;
alter table new_licenses rename to licenses;
-- By this index the key of another product is looked up exactly as one that does not exist.
create unique index license_product_key on licenses (product_id, license_key);
create index license_product on licenses (product_id, license_id);
create index license_plan on licenses (plan_id) where plan_id is not null;
create index license_customer on licenses (customer_id, license_id);
create index license_out_of_use on licenses (license_id) where state <> 'active';
create index license_valid_until on licenses (valid_until_ms) where valid_until_ms is not null;
create index license_domain on licenses (domain) where domain is not null;
create index license_transfer_domain on licenses (transfer_domain) where transfer_domain is not null;
create index license_transfer_until on licenses (transfer_until_ms) where transfer_until_ms is not null;
create trigger device_slots before insert on devices
when (select count(*) from devices where license_id = new.license_id)
     >= (select device_limit from licenses where license_id = new.license_id)
begin
    select raise(abort, 'every device slot of the license is taken');
end;
create trigger license_keeps_product before update of product_id on licenses
when new.product_id <> old.product_id
begin
    select raise(abort, 'a license belongs to one product for ever');
end;

-- A license with the names that are shown with it. `customer` and `company` are empty without a customer, `plan` is
-- the code or null.
create view license_details as
select l.license_id, l.license_key, l.product_id, l.plan_id, p.code as plan, l.customer_id,
       coalesce(c.name, '') as customer, coalesce(c.company, '') as company, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms
from licenses l
left join customers c on c.customer_id = l.customer_id
left join plans p on p.plan_id = l.plan_id;
