-- Calls of programs and websites that were refused, so that support can say why. Rows are written beside the calls, limited
-- in number, and deleted after the days of the settings.

create table refusals (
    refusal_id     integer primary key,
    at_ms          integer not null,                             -- of the first call
    last_at_ms     integer not null check (last_at_ms >= at_ms), -- of the last one
    calls          integer not null check (calls > 0),           -- equal ones of one device within a minute
    code           text not null check (code <> ''),             -- as the program gets it, or how a handshake failed
    call           text not null,                                -- the path below /api/license or /api
    product_id     integer references products (product_id),     -- null: no valid API key, and no known license
    license_id     integer references licenses (license_id),     -- null: unknown
    masked_key     text not null,   -- the beginning of an unknown license key or API key; no text below is null, but empty
    hardware_id    text not null,
    machine_id     text not null,
    client_version text not null,
    domain         text not null,   -- of a website
    address        text not null,
    network        text not null,   -- of the address: what is limited where no license is known
    detail         text not null,   -- a word that tells more than the code: the invalid field, the end reason
    check (license_id is null or product_id is not null)
) strict;
create index refusal_at on refusals (at_ms);
create index refusal_license on refusals (license_id, at_ms) where license_id is not null;
create index refusal_network on refusals (network, at_ms) where license_id is null;
create index refusal_without_license on refusals (at_ms) where license_id is null;
