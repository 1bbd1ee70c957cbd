-- The panel: how administrators prove who they are, what they prefer, and what the overview counts.

alter table admins add column language text check (language in ('de', 'en'));             -- null: as the browser says
alter table admins add column single_keys integer not null default 1 check (single_keys in (0, 1));
alter table admins add column totp_secret blob check (length(totp_secret) >= 20);        -- null: no second factor
alter table admins add column totp_pending blob check (length(totp_pending) >= 20);      -- shown, not confirmed yet
alter table admins add column totp_last_step integer not null default 0;                 -- a step serves once (RFC 6238, 5.2)
alter table admins add column password_set_at_ms integer not null default 0;

-- The last owner cannot be removed or demoted by anybody: nobody could let another one in.
create trigger last_owner_stays before delete on admins
when old.role = 'owner' and (select count(*) from admins where role = 'owner') = 1
begin
    select raise(abort, 'the last owner stays');
end;
create trigger last_owner_stays_owner before update of role on admins
when old.role = 'owner' and new.role <> 'owner' and (select count(*) from admins where role = 'owner') = 1
begin
    select raise(abort, 'the last owner stays');
end;

-- For the day the telephone is lost; of each only the SHA-256.
create table recovery_codes (
    admin_id   integer not null references admins (admin_id) on delete cascade,
    code_hash  blob not null check (length(code_hash) = 32),
    primary key (admin_id, code_hash)
) strict, without rowid;

-- Logins. The browser has the token, the file only its SHA-256.
create table admin_sessions (
    admin_session_id integer primary key,
    token_hash       blob not null unique check (length(token_hash) = 32),
    admin_id         integer not null references admins (admin_id) on delete cascade,
    stage            text not null check (stage in ('password', 'full')),  -- 'password': the second factor is missing
    address          text not null,
    browser          text not null,
    created_at_ms    integer not null,
    seen_at_ms       integer not null,
    proved_at_ms     integer not null   -- when a password or a second factor was last given
) strict;
create index admin_session_admin on admin_sessions (admin_id);

-- Browsers from which somebody logged in before: guessing elsewhere does not slow them.
create table known_browsers (
    token_hash    blob not null check (length(token_hash) = 32),
    admin_id      integer not null references admins (admin_id) on delete cascade,
    seen_at_ms    integer not null,
    primary key (token_hash, admin_id)
) strict, without rowid;
create index known_browser_admin on known_browsers (admin_id, seen_at_ms);

-- Whether an administrator has looked through the client configuration that the first start made.
alter table client_configs add column reviewed integer not null default 0 check (reviewed in (0, 1));
update client_configs set reviewed = 1 where updated_at_ms > 0;

-- How often programs were refused, by UTC day (days since 1970-01-01) and code.
create table daily_refusals (
    day     integer not null,
    code    text not null,
    refused integer not null check (refused > 0),
    primary key (day, code)
) strict, without rowid;

-- The chart of concurrent sessions counts starts and ends.
create index session_history_started on session_history (started_at_ms);
-- The history of any set of licenses, of one reason: each license is looked up by itself.
create index session_history_reason on session_history (license_id, end_reason, ended_at_ms);
-- Lists by customer, newest first.
drop index license_customer;
create index license_customer on licenses (customer_id, license_id);
-- What was done to one thing.
create index audit_log_subject on audit_log (subject, audit_id);
