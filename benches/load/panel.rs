//! Response time and size of the panel's pages with much data: 10,000 licenses with running sessions, and a million
//! rows of history. One client requests each page sequentially.

use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use rusqlite::{Connection, params};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::process::Installation;
use crate::{folder, installation, median, report};

/// Licenses, each with a running session.
const LICENSES: u32 = 10_000;
/// Ended sessions, over ninety days.
const HISTORY: u32 = 1_000_000;
/// Requests per page, of which the median counts.
const TIMES: usize = 15;
/// Goal for the time of a page, in milliseconds.
const PAGE_MS: f64 = 100.0;
/// Goal for the size of a list, in thousands of bytes.
const LIST_KB: f64 = 30.0;
const PASSWORD: &str = "seven green bicycles";
/// The pages, with searches that find much, little or nothing.
const PAGES: &[&str] = &[
    "",
    "?days=7",
    "?days=30",
    "/licenses",
    "/licenses?q=customer-77",
    "/licenses?q=nobody",
    "/search?q=customer-77",
    "/search?q=nobody",
    "/licenses?state=active",
    "/licenses?state=expiring",
    "/licenses/5000",
    "/customers",
    "/customers?q=customer-77",
    "/customers/50",
    "/sessions",
    "/sessions?q=customer-77",
    "/sessions?q=nobody",
    "/sessions/history",
    "/sessions/history?span=30",
    "/sessions/history?span=all&customer=customer-77",
    "/sessions/history?span=all&customer=nobody",
    "/sessions/history?span=all&reason=forced",
    "/config",
    "/releases",
    "/audit",
    "/audit?actor=nobody",
    "/admins",
    "/integrate",
    "/profile",
];

/// Measures every page.
pub fn measure(runtime: &tokio::runtime::Runtime) {
    let dir = folder();
    let installation = installation(dir.path());
    fill(&installation);
    let server = installation.serve();
    runtime.block_on(server.wait_until_ready("/"));
    let browser = Browser::log_in(&installation, server.port());
    report::heading("panel");
    for path in PAGES {
        let mut spans = Vec::new();
        let mut bytes = 0;
        for _ in 0..TIMES {
            let requested_at = Instant::now();
            bytes = browser.get(path);
            spans.push(requested_at.elapsed());
        }
        let kb = f64::from(u32::try_from(bytes).unwrap()) / 1000.0;
        report::page(
            &format!("/lizenzserver{path}"),
            median(spans),
            PAGE_MS,
            kb,
            LIST_KB,
        );
    }
    server.stop();
}

fn fill(installation: &Installation) {
    installation.run(&["customer", "add", "customer-1"]);
    let count = LICENSES.to_string();
    let issue = [
        "license",
        "issue",
        "--customer",
        "customer-1",
        "--devices",
        "3",
    ];
    installation.run(&[&issue[..], &["--count", &count]].concat());
    installation.run(&["config", "set", "session_timeout=86400"]);
    let mut admin = installation
        .command(&[
            "admin",
            "add",
            "owner",
            "--role",
            "owner",
            "--password-stdin",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(admin.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(admin.wait().unwrap().success());
    let connection = Connection::open(installation.database()).unwrap();
    // The triggers of the search index call them.
    license_server::db::register_functions(&connection).unwrap();
    let now_ms: i64 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .try_into()
        .unwrap();
    connection.execute_batch("begin").unwrap();
    for (sql, count) in [
        (CUSTOMERS, 1000),
        (DEVICES, LICENSES),
        (SESSIONS, LICENSES),
        (ENDED, HISTORY),
    ] {
        connection.execute(sql, params![count, now_ms]).unwrap();
    }
    connection.execute_batch(SPREAD).unwrap();
    connection.execute_batch("commit").unwrap();
}

const CUSTOMERS: &str = "with recursive n(i) as (select 2 union all select i + 1 from n where i < ?1) \
    insert into customers (customer_id, name, email, company, note, created_at_ms) \
    select i, 'customer-' || i, 'mail-' || i || '@example.org', 'Company ' || i, '', ?2 from n";
const SPREAD: &str = "update licenses set customer_id = 1 + license_id % 1000, \
    note = 'order ' || license_id, \
    valid_until_ms = iif(license_id % 7 = 0, valid_from_ms + (1 + license_id % 90) * 86400000, null)";
const DEVICES: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into devices (device_id, license_id, hardware_id, machine_id, client_version, \
    activated_at_ms, last_seen_at_ms) select i, i, 'hash of ' || i, 'desk-' || i, '1.0.0', ?2, ?2 from n";
const SESSIONS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into active_sessions (session_id, session_token, license_id, device_id, client_version, \
    address, started_at_ms, last_heartbeat_at_ms, timeout_s) \
    select 2000000 + i, randomblob(16), i, i, '1.0.0', '192.0.2.1', ?2 - i * 1000, ?2, 86400 from n";
const ENDED: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into session_history (session_id, session_token, license_id, hardware_id, machine_id, \
    client_version, address, started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason) \
    select i, randomblob(16), 1 + (i * 7919) % 10000, 'hash of ' || i, 'desk-' || (i % 100), '1.0.0', \
    '192.0.2.' || (i % 250), ?2 - (?1 - i) * 7776 - 3600000, ?2 - (?1 - i) * 7776 - 60000, \
    ?2 - (?1 - i) * 7776, \
    case when i % 1000 = 0 then 'forced' when i % 10 = 0 then 'timeout' else 'normal' end from n";

/// A client that is logged in.
struct Browser {
    agent: Agent,
    url: String,
    cookie: String,
}

impl Browser {
    fn log_in(installation: &Installation, port: u16) -> Self {
        let ca = std::fs::read(installation.folder.join("data/tls/ca.pem")).unwrap();
        let root = Certificate::from_pem(&ca).unwrap();
        let roots = RootCerts::new_with_certs(&[root]);
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent: Agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        let url = format!("https://localhost:{port}/lizenzserver");
        let answer = agent
            .post(format!("{url}/login"))
            .header("Sec-Fetch-Site", "same-origin")
            .send_form([("name", "owner"), ("password", PASSWORD)])
            .unwrap();
        assert_eq!(answer.status(), 303);
        let cookie = answer
            .headers()
            .get_all("set-cookie")
            .iter()
            .find_map(|set| {
                let pair = set.to_str().unwrap().split(';').next().unwrap();
                pair.starts_with("__Host-session=").then(|| pair.to_owned())
            });
        Self {
            agent,
            url,
            cookie: cookie.unwrap(),
        }
    }

    /// The size of a page.
    fn get(&self, path: &str) -> usize {
        let request = self.agent.get(format!("{}{path}", self.url));
        let mut answer = request.header("Cookie", &self.cookie).call().unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.body_mut().read_to_vec().unwrap().len()
    }
}
