//! A software license server in one executable and one SQLite file.
//!
//! The modules, by layer from the bottom up. A module may import from its own layer and from lower ones; a core
//! module imports only those other core modules that `tests/architecture.rs` lists:
//!
//! * ground: [`error`], [`clock`], [`id`], [`version`], [`domain`], [`config`], [`metrics`], [`memory`],
//!   [`logging`], [`text`], [`terms`], [`digest`], [`features`], [`revision`], [`paging`]
//! * storage: [`db`]
//! * tools: [`security`], [`net`], [`archive`], [`tls`], [`i18n`], [`web`], [`console`]
//! * core: [`licenses`], [`customers`], [`devices`], [`activations`], [`trials`], [`sessions`], [`live_sessions`], [`session_history`], [`products`], [`plans`], [`api_keys`],
//!   [`flags`], [`limits`], [`releases`], [`domains`],
//!   [`handshake`], [`idempotency`], [`leases`], [`verification`], [`server_state`], [`audit`], [`privacy`], [`overview`], [`search`],
//!   [`admins`], [`logins`], [`backups`],
//!   [`integrate`], [`signing_keys`], [`manual`]
//! * around the core: [`panel`], the frame and the guards of its pages
//! * assembly: [`front`], [`app`], [`server`], [`jobs`], [`doctor`], [`monitor`], [`demo`], [`cli`]

pub mod activations;
pub mod admins;
pub mod api_keys;
pub mod app;
pub mod archive;
pub mod audit;
pub mod backups;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod customers;
pub mod db;
pub mod demo;
pub mod devices;
pub mod digest;
pub mod doctor;
pub mod domain;
pub mod domains;
pub mod error;
pub mod features;
pub mod figures;
pub mod flags;
pub mod front;
pub mod handshake;
pub mod i18n;
pub mod id;
pub mod idempotency;
pub mod integrate;
pub mod jobs;
pub mod leases;
pub mod license_key;
pub mod license_lists;
pub mod licenses;
pub mod limits;
pub mod live_sessions;
pub mod logging;
pub mod logins;
pub mod manual;
pub mod memory;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod overview;
pub mod paging;
pub mod panel;
pub mod plans;
pub mod privacy;
pub mod product_state;
pub mod products;
pub mod refusals;
pub mod releases;
pub mod revision;
pub mod saved_filters;
pub mod search;
pub mod security;
pub mod server;
pub mod server_state;
pub mod session_history;
pub mod session_lists;
pub mod sessions;
pub mod signing_keys;
pub mod standby;
pub mod terms;
pub mod text;
pub mod timelines;
pub mod tls;
pub mod trials;
pub mod verification;
pub mod version;
pub mod web;
pub mod zone;
