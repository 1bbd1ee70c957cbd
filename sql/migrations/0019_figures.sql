-- Counts for the panel's figures, so that none of them reads the whole history. Triggers keep them, whatever program writes;
-- the server adds refusals, and deletes what no figure shows any more. No count says anything of a person.
-- Moments are the starts of quarters of an hour (900,000 ms): in every time zone a day consists of whole ones.

create table activity_counts (
    kind       text not null check (kind in ('activation', 'license', 'refusal')),
    product_id integer not null,  -- 0: a refusal for no known product
    at_ms      integer not null check (at_ms % 900000 = 0),
    code       text not null,     -- of a refusal: its code; of a new license: its kind; empty otherwise
    count      integer not null check (count > 0),
    primary key (kind, product_id, at_ms, code)
) strict, without rowid;

-- Sessions that started and ended in a quarter of an hour, and the most at once after a start in it.
create table session_counts (
    product_id integer not null,  -- 0: of all products together
    at_ms      integer not null check (at_ms % 900000 = 0),
    started    integer not null,
    ended      integer not null,
    peak       integer not null,  -- 0: none started, or from before this table
    primary key (product_id, at_ms)
) strict, without rowid;

-- How many rows active_sessions has.
create table running_counts (
    product_id integer primary key,  -- 0: of all products together
    running    integer not null
) strict;

-- How many devices last ran a version, by the day (days since 1970-01-01, UTC) on which they were last seen.
create table version_counts (
    product_id     integer not null,
    day            integer not null,
    client_version text not null,
    devices        integer not null,
    primary key (product_id, day, client_version)
) strict, without rowid;

-- Null: not revoked, or before this was noted.
alter table licenses add column revoked_at_ms integer;
update licenses
set revoked_at_ms = (select max(a.at_ms) from audit_log a
                     where a.subject = cast(license_id as text) and a.action = 'licenses.revoke')
where state = 'revoked';
-- Which licenses ended when; without a look at the licenses.
create index license_expiry on licenses (valid_until_ms, product_id, kind, revoked_at_ms) where valid_until_ms is not null;
create index license_revoked on licenses (revoked_at_ms, product_id, valid_until_ms) where revoked_at_ms is not null;

-- What stands. Days of refusals are counted at their noon, which lies in the same day almost everywhere.
insert into activity_counts (kind, product_id, at_ms, code, count)
select 'refusal', 0, day * 86400000 + 43200000, code, refused from daily_refusals;
drop table daily_refusals;
insert into activity_counts (kind, product_id, at_ms, code, count)
select 'activation', l.product_id, d.activated_at_ms / 900000 * 900000, '', count(*)
from devices d join licenses l on l.license_id = d.license_id
group by 2, 3;
insert into activity_counts (kind, product_id, at_ms, code, count)
select 'license', product_id, created_at_ms / 900000 * 900000, kind, count(*) from licenses group by 2, 3, 4;
insert into version_counts (product_id, day, client_version, devices)
select l.product_id, d.last_seen_at_ms / 86400000, d.client_version, count(*)
from devices d join licenses l on l.license_id = d.license_id
group by 1, 2, 3;
insert into running_counts (product_id, running)
select l.product_id, count(*) from active_sessions s join licenses l on l.license_id = s.license_id group by 1;
insert into running_counts (product_id, running) select 0, count(*) from active_sessions;
-- Of the sessions of a row for several, one is taken to have run from the first start to the last end, and the others
-- only when it ended: they ran one after another.
insert into session_counts (product_id, at_ms, started, ended, peak)
with moments (license_id, at_ms, started, ended) as (
    select license_id, started_at_ms, 1, 0 from active_sessions
    union all
    select license_id, started_at_ms, 1, 0 from session_history
    union all
    select license_id, ended_at_ms, coalesce(sessions, 1) - 1, coalesce(sessions, 1) from session_history
)
select l.product_id, m.at_ms / 900000 * 900000, sum(m.started), sum(m.ended), 0
from moments m join licenses l on l.license_id = m.license_id
where m.at_ms >= (select high_water_ms - 8035200000 from server_state)  -- 93 days
group by 1, 2;
insert into session_counts (product_id, at_ms, started, ended, peak)
select 0, at_ms, sum(started), sum(ended), 0 from session_counts group by at_ms;

-- The chart of concurrent sessions needs them no more.
drop index session_history_started;
drop index session_history_folded;

create trigger count_license after insert on licenses
begin
    insert into activity_counts (kind, product_id, at_ms, code, count)
    values ('license', new.product_id, new.created_at_ms / 900000 * 900000, new.kind, 1)
    on conflict do update set count = count + 1;
end;

create trigger count_activation after insert on devices
begin
    insert into activity_counts (kind, product_id, at_ms, code, count)
    select 'activation', product_id, new.activated_at_ms / 900000 * 900000, '', 1
    from licenses where license_id = new.license_id
    on conflict do update set count = count + 1;
    insert into version_counts (product_id, day, client_version, devices)
    select product_id, new.last_seen_at_ms / 86400000, new.client_version, 1
    from licenses where license_id = new.license_id
    on conflict do update set devices = devices + 1;
end;
-- A heartbeat changes the count of a version once a day.
create trigger count_version after update of client_version, last_seen_at_ms on devices
when new.last_seen_at_ms / 86400000 <> old.last_seen_at_ms / 86400000 or new.client_version <> old.client_version
begin
    update version_counts set devices = devices - 1
    where product_id = (select product_id from licenses where license_id = old.license_id)
      and day = old.last_seen_at_ms / 86400000 and client_version = old.client_version;
    delete from version_counts
    where product_id = (select product_id from licenses where license_id = old.license_id)
      and day = old.last_seen_at_ms / 86400000 and client_version = old.client_version and devices <= 0;
    insert into version_counts (product_id, day, client_version, devices)
    select product_id, new.last_seen_at_ms / 86400000, new.client_version, 1
    from licenses where license_id = new.license_id
    on conflict do update set devices = devices + 1;
end;
create trigger uncount_version after delete on devices
begin
    update version_counts set devices = devices - 1
    where product_id = (select product_id from licenses where license_id = old.license_id)
      and day = old.last_seen_at_ms / 86400000 and client_version = old.client_version;
    delete from version_counts
    where product_id = (select product_id from licenses where license_id = old.license_id)
      and day = old.last_seen_at_ms / 86400000 and client_version = old.client_version and devices <= 0;
end;

create trigger count_start after insert on active_sessions
begin
    insert into running_counts (product_id, running)
    select product_id, 1 from licenses where license_id = new.license_id union all select 0, 1
    on conflict do update set running = running + 1;
    insert into session_counts (product_id, at_ms, started, ended, peak)
    select product_id, new.started_at_ms / 900000 * 900000, 1, 0, running
    from running_counts
    where product_id in (0, (select product_id from licenses where license_id = new.license_id))
    on conflict do update set started = started + 1, peak = max(peak, excluded.peak);
end;
-- A session takes the row of the one that it replaces.
create trigger count_replacement after update of session_id on active_sessions
begin
    insert into session_counts (product_id, at_ms, started, ended, peak)
    select product_id, new.started_at_ms / 900000 * 900000, 1, 0, running
    from running_counts
    where product_id in (0, (select product_id from licenses where license_id = new.license_id))
    on conflict do update set started = started + 1, peak = max(peak, excluded.peak);
end;
create trigger uncount_running after delete on active_sessions
begin
    update running_counts set running = running - 1
    where product_id in (0, (select product_id from licenses where license_id = old.license_id));
end;
create trigger count_end after insert on session_history
begin
    insert into session_counts (product_id, at_ms, started, ended, peak)
    select product_id, new.ended_at_ms / 900000 * 900000, 0, coalesce(new.sessions, 1), 0
    from (select product_id from licenses where license_id = new.license_id union all select 0)
    where true
    on conflict do update set ended = ended + excluded.ended;
end;
