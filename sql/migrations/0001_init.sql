-- The whole house, empty. Moments are Unix milliseconds in UTC (…_at_ms), spans are seconds (…_s).
-- What must never be is refused here, whoever writes: the server, a command, a hand with the sqlite3 shell.

-- What the server remembers of its own life; one row.
create table server_state (
    id            integer primary key check (id = 1),
    started_at_ms integer not null,  -- of the running or the last server: silence is counted from here at the earliest
    high_water_ms integer not null   -- the latest date seen: time never goes back below it
) strict;
insert into server_state (id, started_at_ms, high_water_ms) values (1, 0, 0);

-- What an administrator changes in daily work; one row.
create table client_configs (
    config_id          integer primary key check (config_id = 1),
    client_name        text not null check (length(client_name) between 1 and 100),
    api_key            text not null check (length(api_key) >= 20),
    heartbeat_interval integer not null check (heartbeat_interval between 1 and 3600),
    session_timeout    integer not null check (session_timeout > heartbeat_interval and session_timeout <= 86400),
    current_version    text not null check (length(current_version) between 5 and 20),
    minimum_version    text not null check (length(minimum_version) between 5 and 20),
    session_policy     text not null check (session_policy in ('reject', 'replace_same_device', 'replace')),
    updated_at_ms      integer not null
) strict;

-- API keys that were rotated out and still open the door for a while.
create table retired_api_keys (
    api_key        text primary key,
    valid_until_ms integer not null
) strict, without rowid;

create table customers (
    customer_id   integer primary key,
    name          text not null check (length(name) between 1 and 200),
    email         text not null default '',
    company       text not null default '',
    note          text not null default '',
    created_at_ms integer not null
) strict;

create table licenses (
    license_id     integer primary key,
    license_key    text not null unique check (length(license_key) = 25), -- normalised: no hyphens, upper case
    customer_id    integer not null references customers (customer_id),
    kind           text not null check (kind in ('full', 'trial')),
    state          text not null check (state in ('active', 'suspended', 'revoked')),
    device_limit   integer not null check (device_limit between 1 and 100000),
    valid_from_ms  integer not null,
    valid_until_ms integer check (valid_until_ms >= valid_from_ms),       -- null: for ever
    domain         text,
    note           text not null default '',
    created_at_ms  integer not null
) strict;
create index license_customer on licenses (customer_id);
-- Serves the sweep: few licenses are out of use, and fewer still have a session.
create index license_out_of_use on licenses (license_id) where state <> 'active';
create index license_valid_until on licenses (valid_until_ms) where valid_until_ms is not null;

-- A device that holds a slot of a license; the fingerprint (hardware_id) alone identifies it.
create table devices (
    device_id       integer primary key,
    license_id      integer not null references licenses (license_id),
    hardware_id     text not null check (length(hardware_id) between 1 and 255),
    machine_id      text not null check (length(machine_id) between 1 and 255),
    client_version  text not null,
    activated_at_ms integer not null,
    last_seen_at_ms integer not null,
    unique (license_id, hardware_id)
) strict;

-- Two devices that race for the last slot: the file itself lets only one in.
create trigger device_slots before insert on devices
when (select count(*) from devices where license_id = new.license_id)
     >= (select device_limit from licenses where license_id = new.license_id)
begin
    select raise(abort, 'every device slot of the license is taken');
end;

-- The sessions that run, or have run out and were not noticed yet. One a license, whatever happens.
create table active_sessions (
    session_id           integer primary key,
    session_token        blob not null unique check (length(session_token) = 16),
    license_id           integer not null unique references licenses (license_id),
    device_id            integer not null references devices (device_id),
    client_version       text not null,
    address              text not null,     -- where the start came from
    started_at_ms        integer not null,
    last_heartbeat_at_ms integer not null,  -- at most a second old while the server runs
    timeout_s            integer not null   -- the silence that the program was promised
) strict;
create index active_session_device on active_sessions (device_id);

-- Every session that ended, once. Devices are named by their own words: a device may be gone.
create table session_history (
    session_id           integer primary key,
    session_token        blob not null unique check (length(session_token) = 16),
    license_id           integer not null references licenses (license_id),
    hardware_id          text not null,
    machine_id           text not null,
    client_version       text not null,
    address              text not null,
    started_at_ms        integer not null,
    last_heartbeat_at_ms integer not null,
    ended_at_ms          integer not null,
    end_reason           text not null check (end_reason in ('normal', 'timeout', 'forced', 'replaced'))
) strict;
create index session_history_ended on session_history (ended_at_ms);
create index session_history_license on session_history (license_id, ended_at_ms);

-- A session is in one of the two tables, never in both.
create trigger session_runs_or_has_ended before insert on session_history
when exists (select 1 from active_sessions where session_token = new.session_token)
begin
    select raise(abort, 'the session still runs');
end;

-- First answers, given again to a program that lost them.
create table idempotent_answers (
    license_id      integer not null references licenses (license_id),
    hardware_id     text not null,
    deed            text not null check (deed in ('activate', 'start')),
    idempotency_key text not null check (length(idempotency_key) between 1 and 64),
    answer          text not null,          -- JSON
    session_id      integer,                -- of a start: the answer lives as long as the session
    at_ms           integer not null,
    primary key (license_id, hardware_id, deed, idempotency_key)
) strict, without rowid;
create index idempotent_answer_at on idempotent_answers (at_ms);

create table releases (
    release_id     integer primary key,
    version        text not null unique check (length(version) between 5 and 20),
    channel        text not null check (length(channel) between 1 and 32),
    notes          text not null,
    download_url   text,
    sha256         text check (length(sha256) = 64),
    state          text not null check (state in ('released', 'yanked')),
    released_at_ms integer not null
) strict;

create table feature_flags (
    name          text primary key check (length(name) between 1 and 64),
    description   text not null,
    enabled       integer not null check (enabled in (0, 1)),
    share_percent integer not null check (share_percent between 0 and 100),
    updated_at_ms integer not null
) strict, without rowid;

-- Per source address; per_minute 0 switches a group off. A company of 1,000 devices behind one address
-- starts its working day within these.
create table rate_limits (
    name          text primary key check (name in ('client', 'client_failures', 'login', 'site', 'admin_api')),
    per_minute    integer not null check (per_minute between 0 and 1000000),
    burst         integer not null check (burst between 1 and 1000000),
    updated_at_ms integer not null
) strict, without rowid;
insert into rate_limits (name, per_minute, burst, updated_at_ms) values
    ('client',          12000, 6000, 0),
    ('client_failures',    60,  100, 0),
    ('login',              10,   10, 0),
    ('site',               30,   30, 0),
    ('admin_api',         600,  200, 0);

create table admins (
    admin_id      integer primary key,
    name          text not null unique check (length(name) between 1 and 64),
    role          text not null check (role in ('owner', 'admin', 'support')),
    password_hash text not null,
    created_at_ms integer not null
) strict;

-- Who did what, when, from where. Each row carries the hash of the row before it.
create table audit_log (
    audit_id integer primary key,
    at_ms    integer not null,
    actor    text not null,           -- an administrator's name, or 'command line', or 'server'
    source   text not null,           -- an address, or the operating system's user
    deed     text not null,           -- <room>.<verb>
    subject  text not null,           -- what it was done to
    before   text not null,           -- JSON
    after    text not null,           -- JSON
    hash     blob not null check (length(hash) = 32)
) strict;

-- The last line of the audit log, once more: so that a removed one is missed too. One row.
create table audit_head (
    id       integer primary key check (id = 1),
    audit_id integer not null,
    hash     blob not null check (length(hash) = 32)
) strict;
insert into audit_head (id, audit_id, hash) values (1, 0, zeroblob(32));
