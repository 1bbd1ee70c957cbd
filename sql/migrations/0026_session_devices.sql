-- A running session belongs to a device of its own license. This is checked by both columns, through the index of
-- unique (license_id): an index of devices here would be written at a place of chance by each start and each end, and only
-- the removal of a device would read it.

create unique index device_license on devices (device_id, license_id);

create table sessions_with_device (
    session_id           integer primary key,
    session_token        blob not null unique check (length(session_token) = 16),
    license_id           integer not null unique references licenses (license_id),
    device_id            integer not null,
    client_version       text not null,
    address              text not null,     -- where the start came from
    started_at_ms        integer not null,
    last_heartbeat_at_ms integer not null,  -- at most a second old while the server runs
    timeout_s            integer not null,  -- the silence that the program was promised
    foreign key (device_id, license_id) references devices (device_id, license_id)
) strict;
insert into sessions_with_device (session_id, session_token, license_id, device_id, client_version, address, started_at_ms,
                                  last_heartbeat_at_ms, timeout_s)
select session_id, session_token, license_id, device_id, client_version, address, started_at_ms, last_heartbeat_at_ms,
       timeout_s
from active_sessions;

-- What names the table is made anew, unchanged.
drop view running_sessions;
drop trigger session_runs_or_has_ended;
drop table active_sessions;
alter table sessions_with_device rename to active_sessions;
create view running_sessions as
select s.session_id, s.license_id, s.device_id, s.client_version, s.address, s.started_at_ms, s.last_heartbeat_at_ms,
       max(s.last_heartbeat_at_ms, (select started_at_ms from server_state where id = 1)) + s.timeout_s * 1000
           as runs_until_ms
from active_sessions s;
create trigger session_runs_or_has_ended before insert on session_history
when exists (select 1 from active_sessions where session_token = new.session_token)
begin
    select raise(abort, 'the session still runs');
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
