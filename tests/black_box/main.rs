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
mod database;
mod inspect;
mod recording;
mod setup;
mod timing;
mod wire;

mod activations {
    mod slots;
}
mod admins {
    pub mod accounts;
    mod names;
    pub mod setup;
}
mod audit {
    mod entries;
    pub mod panel;
}
mod backups {
    pub mod archives;
    mod database_files;
    mod folder;
    mod leftovers;
    mod panel;
}
mod cli {
    mod as_root;
    pub mod commands;
}
mod clock {
    pub mod at_start;
}
mod config {
    mod settings;
}
mod customers {
    mod names;
    mod panel;
}
mod db {
    mod earlier_schemas;
    mod paths;
    mod triggers;
    mod vanished;
}
mod demo {
    mod run;
}
mod domains {
    mod commands;
    mod panel;
}
mod figures {
    mod panel;
}
mod front {
    mod crowds;
    mod libraries;
    mod proxies;
    mod requests;
    mod reverse_proxies;
    pub mod siege;
}
mod handshake {
    pub mod callbacks;
    pub mod messages;
    pub mod products;
    mod refusals;
    mod tls_errors;
}
mod idempotency {
    mod repeats;
}
mod integrate {
    mod first_starts;
    mod harness;
    mod languages;
    pub mod panel;
    mod program;
    mod proxy;
    mod site_files;
}
mod licenses {
    mod commands;
    pub mod panel;
    pub mod panel_lists;
    mod selected;
    mod standing;
    mod updates;
}
mod limits {
    mod addresses;
}
mod logins {
    pub mod factors;
    mod failed_logins;
    mod lifetime;
}
mod manual {
    mod codes;
    pub mod documents;
    mod pages;
    mod shell;
}
mod overview {
    mod panel;
}
mod packaging {
    mod container;
    mod deb;
    mod layout;
}
mod panel {
    mod elsewhere;
    mod forms;
    mod headers;
    mod kept;
    mod meetings;
    mod permissions;
    mod reports;
    mod routes;
    mod time_zones;
}
mod plans {
    mod apply;
    pub mod commands;
    mod panel;
}
mod privacy {
    mod erase;
    mod export;
    mod handshakes;
    mod moved;
    mod panel;
    pub mod person;
    mod refusals;
    mod restored;
    mod retention;
    mod vacuum;
}
mod products {
    mod apart;
    mod archived;
    mod choice;
    mod commands;
    mod pages;
    mod panel;
    mod separate;
    mod versions;
}
mod refusals {
    mod recorded;
}
mod releases {
    mod panel;
}
mod saved_filters {
    mod panel;
}
mod search {
    mod everything;
}
mod security {
    mod secrets;
}
mod server {
    mod log_lines;
    mod reachability;
    pub mod signals;
    mod stop;
}
mod sessions {
    mod frozen;
    mod lifetime;
    mod limits_of_a_license;
    mod panel;
    mod policies;
    mod restarts;
}
mod signing_keys {
    mod signed;
}
mod tls {
    mod acme;
    mod certificates;
}
mod trials;
mod web {
    mod as_before;
    mod bodies;
    pub mod page_sizes;
    mod refusals;
    pub mod text;
}
