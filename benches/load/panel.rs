//! Response time and size of the panel's pages with much data. One client requests each page sequentially, while a program
//! sends heartbeats.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use license_server::licenses::LicenseKey;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use uuid::Uuid;

use crate::fill::TIMEOUT_S;
use crate::process::Installation;
use crate::{HEARTBEAT, folder, installation, report};

/// How much data there is.
#[derive(Clone, Copy)]
pub struct Size {
    licenses: u32,
    /// Running sessions, each on the license and the device with its id.
    sessions: u32,
    /// Ended sessions, over ninety days.
    history: u32,
    customers: u32,
    /// Rows of refused calls; a shop keeps 100,000.
    refusals: u32,
}

impl Size {
    pub const USUAL: Self = Self {
        licenses: 10_000,
        sessions: 10_000,
        history: 1_000_000,
        customers: 1_000,
        refusals: 10_000,
    };
    pub const LARGE: Self = Self {
        licenses: 1_000_000,
        sessions: 100_000,
        history: 5_000_000,
        customers: 100_000,
        refusals: 100_000,
    };
}

/// Requests per page, of which the median counts, and the last but one as the 95th percentile.
const TIMES: usize = 20;
/// Goal for the 95th percentile of a page, in milliseconds.
const PAGE_MS: f64 = 100.0;
/// Goal for the size of a page, and of a list, which shows 50 rows, in thousands of bytes.
const PAGE_KB: f64 = 30.0;
const LIST_KB: f64 = 80.0;
/// Pause between two heartbeats.
const BEAT: Duration = Duration::from_millis(3);
/// Time in which heartbeats are sent with no page beside them.
const ALONE: Duration = Duration::from_secs(5);
const PASSWORD: &str = "seven green bicycles";
/// The pages, with searches that find much, little or nothing.
const PAGES: &[&str] = &[
    "",
    "?days=7",
    "?days=30",
    "?days=90",
    "/figures",
    "/figures?days=90",
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
    "/search?q=mail-777%40example",
    "/search?q=order+9999",
    "/search?q=desk-5000",
    "/licenses?order=customer",
    "/customers?order=name",
    "/refusals",
    "/refusals?customer=customer-77",
    "/refusals?device=desk-5000",
    "/licenses?state=expired",
    "/licenses?state=unused",
    "/licenses?state=stopped",
    "/licenses?order=-customer&state=active",
    "/licenses?order=key",
    "/licenses?order=devices",
    "/licenses?order=-devices",
    "/licenses?order=valid_until",
    "/licenses?order=-valid_until&state=expired",
    "/licenses?order=customer&state=expiring",
    "/licenses?customer=50",
    "/licenses?q=customer-77&order=customer",
    "/customers?order=-company",
    "/customers?order=-email",
    "/customers?order=-licenses",
    "/sessions?order=oldest",
    "/sessions?order=latest-heartbeat",
    "/sessions?order=earliest-heartbeat",
    "/sessions?q=desk-5000",
    "/sessions?q=desk",
    "/sessions?q=192.0.2.77",
    "/sessions/history?span=all&order=ended",
    "/sessions/history?span=all&customer=customer-77777",
    "/sessions/history?span=all&customer=customer",
    "/sessions/history?span=all&reason=timeout&customer=customer-77",
    "/audit?subject=5000",
    "/audit?module=licenses",
    "/sites",
    "/sites/handshakes",
    "/products",
    "/plans",
    "/backups",
];

/// Pages that show a list, without searches.
const LISTS: &[&str] = &[
    "/licenses",
    "/customers",
    "/sessions",
    "/sessions/history",
    "/audit",
    "/refusals",
    "/sites",
    "/sites/handshakes",
    "/products",
    "/plans",
    "/backups",
];

/// Measures every page.
pub fn measure(runtime: &tokio::runtime::Runtime, size: Size) {
    let dir = folder();
    let kept = std::env::var_os("LICENSE_BENCH_FOLDER").map(PathBuf::from);
    let installation = installation(kept.as_deref().unwrap_or_else(|| dir.path()));
    let began = Instant::now();
    if !installation.database().exists() {
        fill(&installation, size);
    }
    let heartbeat = heartbeat(&installation);
    println!(
        "\n{} licenses, {} running sessions, {} ended ones, written in {:.0} s",
        size.licenses,
        size.sessions,
        size.history,
        began.elapsed().as_secs_f64()
    );
    let server = installation.serve();
    runtime.block_on(server.wait_until_ready("/"));
    let program = Program::new(&installation, server.port(), heartbeat);
    let browser = Browser::log_in(&installation, server.port());
    let until = Instant::now() + ALONE;
    let alone = program.beat(|| Instant::now() < until);
    report::heading("panel");
    let is_over = AtomicBool::new(false);
    let mut slow = Vec::new();
    let beside = std::thread::scope(|scope| {
        let beats = scope.spawn(|| program.beat(|| !is_over.load(Ordering::Relaxed)));
        for path in PAGES {
            if !measure_page(&browser, path) {
                slow.push(*path);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        beats.join().unwrap()
    });
    for (label, spans) in [("alone", alone), ("beside the pages", beside)] {
        println!(
            "heartbeat {label}: p50 {:.2} ms, p99 {:.2} ms, {} sent",
            quantile(&spans, 50),
            quantile(&spans, 99),
            spans.len()
        );
    }
    server.stop();
    report::slow_pages(&slow, PAGE_MS);
}

/// Whether the page is as quick as it should be.
fn measure_page(browser: &Browser, path: &str) -> bool {
    let mut spans = Vec::new();
    let mut bytes = 0;
    for _ in 0..TIMES {
        let requested_at = Instant::now();
        bytes = browser.get(path);
        spans.push(requested_at.elapsed());
    }
    spans.sort();
    let kb = f64::from(u32::try_from(bytes).unwrap()) / 1000.0;
    let is_list = LISTS.contains(&path.split('?').next().unwrap_or_default());
    report::page(
        &format!("/lizenzserver{path}"),
        (quantile(&spans, 50), quantile(&spans, 95)),
        PAGE_MS,
        kb,
        if is_list { LIST_KB } else { PAGE_KB },
    );
    quantile(&spans, 95) < PAGE_MS
}

/// In milliseconds, of times in ascending order.
fn quantile(spans: &[Duration], percent: usize) -> f64 {
    let place = (spans.len() * percent).div_ceil(100);
    spans[place.saturating_sub(1)].as_secs_f64() * 1000.0
}

/// The body of a heartbeat of the first license's session.
fn heartbeat(installation: &Installation) -> Value {
    let connection = Connection::open(installation.database()).unwrap();
    let of_first = "select l.license_key, s.session_token from licenses l \
        join active_sessions s on s.license_id = l.license_id where l.license_id = 1";
    let row = connection.query_row(of_first, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (key, token): (String, [u8; 16]) = row.unwrap();
    json!({ "session_token": Uuid::from_bytes(token).to_string(), "license_key": key })
}

/// Fills the database, which no server may be using.
fn fill(installation: &Installation, size: Size) {
    installation.run(&["customer", "add", "customer-1"]);
    installation.run(&["config", "set", &format!("session_timeout={TIMEOUT_S}")]);
    installation.run(&["limit", "set", "client", "--per-minute", "0"]);
    let add = [
        "admin",
        "add",
        "owner",
        "--role",
        "owner",
        "--password-stdin",
    ];
    let mut admin = installation
        .command(&add)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(admin.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(admin.wait().unwrap().success());
    let mut connection = Connection::open(installation.database()).unwrap();
    // The triggers of the search index call them.
    license_server::db::register_functions(&connection).unwrap();
    let now_ms: i64 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .try_into()
        .unwrap();
    let tx = connection.transaction().unwrap();
    tx.execute(CUSTOMERS, params![size.customers, now_ms])
        .unwrap();
    let mut license = tx.prepare(LICENSE).unwrap();
    let day_ms = 86_400_000;
    for id in 1..=size.licenses {
        let key = LicenseKey::new().unwrap();
        let customer = 1 + id % size.customers;
        let until_ms = (id % 7 == 0).then(|| now_ms + i64::from(1 + id % 90) * day_ms);
        let note = format!("order {id}");
        license
            .execute(params![id, key.stored(), customer, now_ms, until_ms, note])
            .unwrap();
    }
    drop(license);
    tx.execute(DEVICES, params![size.licenses, now_ms]).unwrap();
    tx.execute(SESSIONS, params![size.sessions, now_ms])
        .unwrap();
    tx.execute(ENDED, params![size.history, now_ms, size.licenses])
        .unwrap();
    tx.execute(REFUSED, params![size.refusals, now_ms, size.licenses])
        .unwrap();
    tx.commit().unwrap();
}

const CUSTOMERS: &str = "with recursive n(i) as (select 2 union all select i + 1 from n where i < ?1) \
    insert into customers (customer_id, name, email, company, note, created_at_ms) \
    select i, 'customer-' || i, 'mail-' || i || '@example.org', 'Company ' || i, '', ?2 from n";
const LICENSE: &str = "insert into licenses (license_id, license_key, product_id, customer_id, kind, state, \
    device_limit, valid_from_ms, created_at_ms, valid_until_ms, note) values (?1, ?2, 1, ?3, 'full', \
    iif(?1 % 50 = 0, 'suspended', 'active'), 3, ?4, ?4, ?5, ?6)";
const DEVICES: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into devices (device_id, license_id, hardware_id, machine_id, client_version, \
    activated_at_ms, last_seen_at_ms) select i, i, 'hash of ' || i, 'desk-' || i, \
    '1.' || (i % 9) || '.0', ?2 - i % 60 * 86400000, ?2 - i % 60 * 86400000 from n";
const SESSIONS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into active_sessions (session_id, session_token, license_id, device_id, client_version, \
    address, started_at_ms, last_heartbeat_at_ms, timeout_s) \
    select 10000000 + i, randomblob(16), i, i, '1.0.0', '192.0.2.1', ?2 - i * 100, ?2, 86400 from n";
const ENDED: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into session_history (session_id, session_token, license_id, hardware_id, machine_id, \
    client_version, address, started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason) \
    select 20000000 + i, randomblob(16), 1 + (i * 7919) % ?3, 'hash of ' || i, 'desk-' || (i % 100), '1.0.0', \
    '192.0.2.' || (i % 250), ?2 - (?1 - i) * 7776000000 / ?1 - 3600000, \
    ?2 - (?1 - i) * 7776000000 / ?1 - 60000, ?2 - (?1 - i) * 7776000000 / ?1, \
    case when i % 1000 = 0 then 'forced' when i % 10 = 0 then 'timeout' else 'normal' end from n";
const REFUSED: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into refusals (at_ms, last_at_ms, calls, code, call, product_id, license_id, masked_key, hardware_id, \
    machine_id, client_version, domain, address, network, detail) \
    select ?2 - (?1 - i) * 20000, ?2 - (?1 - i) * 20000, 1, 'license_expired', 'session/start', 1, \
    1 + (i * 7919) % ?3, '', 'hash of ' || i, 'desk-' || i, '1.0.0', '', '192.0.2.1', '192.0.2.1', '' from n";

/// A program whose session runs, on a connection of its own.
struct Program {
    agent: Agent,
    url: String,
    api_key: String,
    heartbeat: Value,
}

impl Program {
    fn new(installation: &Installation, port: u16, heartbeat: Value) -> Self {
        let config = installation.run(&["--json", "config", "show"]);
        let config: Value = serde_json::from_slice(&config).unwrap();
        Self {
            agent: agent(installation),
            url: format!("https://localhost:{port}{HEARTBEAT}"),
            api_key: config["api_key"].as_str().unwrap().to_owned(),
            heartbeat,
        }
    }

    /// Sends heartbeats one after another; how long each took, in ascending order.
    fn beat(&self, goes_on: impl Fn() -> bool) -> Vec<Duration> {
        let mut spans = Vec::new();
        while goes_on() {
            let sent_at = Instant::now();
            let request = self.agent.post(&self.url);
            let request = request.header("X-API-Key", &self.api_key);
            let mut answer = request.send_json(&self.heartbeat).unwrap();
            assert_eq!(answer.status(), 200);
            answer.body_mut().read_to_vec().unwrap();
            spans.push(sent_at.elapsed());
            std::thread::sleep(BEAT);
        }
        spans.sort();
        spans
    }
}

fn agent(installation: &Installation) -> Agent {
    let ca = std::fs::read(installation.folder.join("data/tls/ca.pem")).unwrap();
    let root = Certificate::from_pem(&ca).unwrap();
    let roots = RootCerts::new_with_certs(&[root]);
    let tls = TlsConfig::builder().root_certs(roots).build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into()
}

/// A client that is logged in.
struct Browser {
    agent: Agent,
    url: String,
    cookie: String,
}

impl Browser {
    fn log_in(installation: &Installation, port: u16) -> Self {
        let agent = agent(installation);
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
