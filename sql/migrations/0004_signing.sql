-- What answers are signed with, and for how long a program may run without us.

-- The public halves of the key pairs; the private ones are files beside the database, so that no copy of the
-- database can sign. That a pair is named here and its file is missing is how the loss of one is noticed.
create table signing_keys (
    public_key    blob primary key check (length(public_key) = 32),
    role          text not null check (role in ('current', 'next', 'previous')),
    retired_at_ms integer check ((retired_at_ms is not null) = (role = 'previous'))
) strict, without rowid;
create unique index signing_key_role on signing_keys (role) where role <> 'previous';

-- 0: programs get no lease. A lease cannot be taken back, so it is short.
alter table client_configs add column offline_days integer not null default 0
    check (offline_days between 0 and 90);
