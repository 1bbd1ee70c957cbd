//! Settings and commands with which tests prepare their server, and its start.

use std::time::Duration;

use crate::support::{Client, Server};

/// The command that sets a rate limit.
pub const fn limit<'a>(group: &'a str, per_minute: &'a str, burst: &'a str) -> [&'a str; 7] {
    [
        "limit",
        "set",
        group,
        "--per-minute",
        per_minute,
        "--burst",
        burst,
    ]
}

/// The command that limits programs to one call a minute.
pub const ONE_A_MINUTE: &[&str] = &limit("client", "1", "1");
/// Delays the sweep of timed-out sessions beyond the end of every test.
pub const NO_SWEEP: (&str, &str) = ("SESSIONS__CLEANUP_INTERVAL", "3600");
pub const AUTO_ACTIVATE: (&str, &str) = ("SESSIONS__AUTO_ACTIVATE", "true");
/// The command that lets a session time out after two seconds without a heartbeat.
pub const SHORT_TIMEOUT: &[&str] = &["config", "set", "heartbeat_interval=1", "session_timeout=2"];
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// No limit on the starts of one license.
pub const MANY_STARTS: (&str, &str) = ("SESSIONS__STARTS_PER_MINUTE", "0");
/// No limit on the ended sessions that are stored one by one.
pub const WHOLE_HISTORY: (&str, &str) = ("SESSIONS__HISTORY_PER_DAY", "0");
pub const NO_LIMIT: &[&str] = &["limit", "set", "client", "--per-minute", "0"];

/// A server that is started after these commands were run on its database.
pub fn started(settings: &[(&str, &str)], commands: &[&[&str]]) -> Server {
    let mut server = Server::prepare(settings);
    for command in commands {
        server.json(command);
    }
    server.run();
    server
}

/// A well-formed key that no license has.
pub const UNKNOWN: &str = "00000-00000-00000-00000-00000";

/// The slug of the first product of [`two_products`].
pub const FIRST: &str = "notes";
/// The slug of its second product.
pub const SECOND: &str = "ledger";

/// A server with the products [`FIRST`] and [`SECOND`] and the customer Ada, restarted after these further commands; and
/// clients with the API key of each product.
pub fn two_products(settings: &[(&str, &str)], commands: &[&[&str]]) -> (Server, [Client; 2]) {
    let prepare: [&[&str]; 2] = [
        &["config", "set", "client_name=Notes"],
        &["customer", "add", "Ada"],
    ];
    let mut server = started(settings, &prepare);
    server.json(&["product", "add", "Ledger"]);
    for command in commands {
        server.json(command);
    }
    server.restart();
    let clients = [FIRST, SECOND].map(|product| {
        let shown = server.json(&["config", "show", "--product", product]);
        server.client().with_key(shown["api_key"].as_str().unwrap())
    });
    (server, clients)
}

/// Issues a license of a product; its key.
pub fn issue_of(server: &Server, product: &str, more: &[&str]) -> String {
    let issue = [
        "license",
        "issue",
        "--customer",
        "Ada",
        "--product",
        product,
    ];
    let issued = server.json(&[&issue, more].concat());
    let key = &issued["licenses"][0]["license_key"];
    key.as_str().unwrap().to_owned()
}
