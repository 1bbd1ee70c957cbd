-- Trials that programs start without a key. Each has a license of the product's trial plan, bound to one device until
-- somebody buys it.

-- What tells a device from others is kept as a digest: it answers "was it here before", and not "which one is it".
create table trials (
    license_id         integer primary key references licenses (license_id),
    product_id         integer not null references products (product_id),
    fingerprint_digest blob check (length(fingerprint_digest) = 32), -- SHA-256 over product and fingerprint; null: erased
    started_at_ms      integer not null,
    unique (product_id, fingerprint_digest)
) strict;
create index trial_started on trials (product_id, started_at_ms);
create trigger trial_is_for_ever before delete on trials
begin
    select raise(abort, 'the trial of a device is never deleted');
end;

-- Per source address. Calls are limited per minute, with a burst; new trials per hour, of which any may come at once.
-- 0 switches a group off.
create table new_rate_limits (
    name          text primary key
                  check (name in ('client', 'client_failures', 'login', 'site', 'trials', 'admin_api')),
    per_minute    integer check (per_minute between 0 and 1000000),
    burst         integer check (burst between 1 and 1000000),
    per_hour      integer check (per_hour between 0 and 10000),
    updated_at_ms integer not null,
    check ((name = 'trials') = (per_hour is not null)),
    check ((per_hour is null) = (per_minute is not null) and (per_hour is null) = (burst is not null))
) strict, without rowid;
insert into new_rate_limits (name, per_minute, burst, updated_at_ms)
select name, per_minute, burst, updated_at_ms from rate_limits;
insert into new_rate_limits (name, per_hour, updated_at_ms) values ('trials', 10, 0);
drop table rate_limits;
alter table new_rate_limits rename to rate_limits;

-- The answer to the start of a trial is kept for a repeated request, as that of an activation.
create table new_idempotent_answers (
    license_id      integer not null references licenses (license_id),
    hardware_id     text not null,
    operation       text not null check (operation in ('activate', 'start', 'trial')),
    idempotency_key text not null check (length(idempotency_key) between 1 and 64),
    answer          text not null,          -- JSON
    session_id      integer,                -- of a start: the answer lives as long as the session
    at_ms           integer not null,
    primary key (license_id, hardware_id, operation, idempotency_key)
) strict, without rowid;
insert into new_idempotent_answers (license_id, hardware_id, operation, idempotency_key, answer, session_id, at_ms)
select license_id, hardware_id, operation, idempotency_key, answer, session_id, at_ms from idempotent_answers;
drop table idempotent_answers;
alter table new_idempotent_answers rename to idempotent_answers;
create index idempotent_answer_at on idempotent_answers (at_ms);
