-- Sites: licenses on domains that move, the last handshakes, and who completed one.

-- A license on its way to another domain: both are served until transfer_until_ms, then only the new one.
alter table licenses add column transfer_domain text 
    check (transfer_domain is null or (domain is not null and domain <> transfer_domain));
alter table licenses add column transfer_until_ms integer
    check ((transfer_until_ms is null) = (transfer_domain is null));
alter table licenses add column transfer_confirmed_at_ms integer;   -- when the new domain registered itself
-- Whoever names a domain is looked up here, known or not.
create index license_domain on licenses (domain) where domain is not null;
create index license_transfer_domain on licenses (transfer_domain) where transfer_domain is not null;
create index license_transfer_until on licenses (transfer_until_ms) where transfer_until_ms is not null;

-- The last handshakes, for people; the oldest make room.
create table handshakes (
    handshake_id integer primary key,
    at_ms        integer not null,    -- when the site asked
    domain       text not null,       -- whom it named, and who was called
    source       text not null,       -- where the request came from
    operation    text,                -- null: it never came to that
    ending       text not null check (ending in ('delivered', 'undelivered', 'unanswered', 'refused', 'abandoned')),
    reason       text not null        -- a word: what went wrong with a call; empty otherwise
) strict;
create index handshake_domain on handshakes (domain, handshake_id);

-- Who completed a handshake for a domain: part of its budget is kept for them, whatever strangers ask for.
create table known_sources (
    domain          text not null,
    source          text not null,    -- an IPv4 address, or an IPv6 network of 64 bits
    completed_at_ms integer not null,
    primary key (domain, source)
) strict, without rowid;
