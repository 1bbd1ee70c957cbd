//! Tests of the real executable from outside: process, port, HTTPS, command line. Each test starts its own server.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may panic, measure time itself, and contain a long table"
)]

#[path = "../support/authority.rs"]
mod authority;
#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/relay.rs"]
mod relay;
#[path = "../support/shop.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod shop;
#[path = "../support/sites.rs"]
mod sites;
#[path = "../support/mod.rs"]
mod support;

/// Helpers that several files use.
mod scene;
mod wire;

mod accounts;
mod acme;
mod archives;
mod as_root;
mod audit;
mod backups;
mod bodies;
mod budgets;
mod callbacks;
mod certificates;
mod clock;
mod commands;
mod crowds;
mod customers;
mod db {
    mod earlier_schemas;
}
mod demo;
mod devices;
mod domains;
mod factors;
mod failed_logins;
mod front;
mod frozen;
mod handshake;
mod idempotency;
mod libraries;
mod license_limits;
mod limits;
mod log_lines;
mod matrix;
mod names;
mod panel_audit;
mod panel_backups;
mod panel_config;
mod panel_integrate;
mod panel_licenses;
mod panel_overview;
mod panel_releases;
mod panel_sessions;
mod panel_sites;
mod paths;
mod policies;
mod program;
mod reach;
mod refusals;
mod restarts;
mod secrets;
mod sessions;
mod settings;
mod siege;
mod signals;
mod signed;
mod site_files;
mod standing;
mod stop;
mod text;
mod vanished;
mod versions;
