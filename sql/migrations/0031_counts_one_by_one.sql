-- The counts of running sessions, by the same rules as before: a list of two products made SQLite open a temporary table at
-- each start, each replacement and each end.
drop trigger count_start;
create trigger count_start after insert on active_sessions
begin
    insert into running_counts (product_id, running)
    select product_id, 1 from licenses where license_id = new.license_id union all select 0, 1
    on conflict do update set running = running + 1;
    insert into session_counts (product_id, at_ms, started, ended, peak)
    select product_id, new.started_at_ms / 900000 * 900000, 1, 0, running
    from running_counts where product_id = 0
    union all
    select product_id, new.started_at_ms / 900000 * 900000, 1, 0, running
    from licenses join running_counts using (product_id) where license_id = new.license_id
    on conflict do update set started = started + 1, peak = max(peak, excluded.peak);
end;

-- A session takes the row of the one that it replaces.
drop trigger count_replacement;
create trigger count_replacement after update of session_id on active_sessions
begin
    insert into session_counts (product_id, at_ms, started, ended, peak)
    select product_id, new.started_at_ms / 900000 * 900000, 1, 0, running
    from running_counts where product_id = 0
    union all
    select product_id, new.started_at_ms / 900000 * 900000, 1, 0, running
    from licenses join running_counts using (product_id) where license_id = new.license_id
    on conflict do update set started = started + 1, peak = max(peak, excluded.peak);
end;

drop trigger uncount_running;
create trigger uncount_running after delete on active_sessions
begin
    update running_counts set running = running - 1 where product_id = 0;
    update running_counts set running = running - 1
    where product_id = (select product_id from licenses where license_id = old.license_id);
end;
