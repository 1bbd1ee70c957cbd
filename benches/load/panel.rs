//! Response time and size of the panel's pages with much data. One client requests each page sequentially, while a program
//! sends heartbeats.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use uuid::Uuid;

use crate::data::PASSWORD;
use crate::process::Installation;
use crate::report::Line;
use crate::{Bench, HEARTBEAT};

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
/// Pages that are always in the table.
const SLOWEST: usize = 5;
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
    "/licenses?q=customer",
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
    "/sessions?order=started",
    "/sessions?order=-last_heartbeat",
    "/sessions?order=last_heartbeat",
    "/sessions?q=desk-5000",
    "/sessions?q=desk",
    "/sessions?q=192.0.2.77",
    "/sessions?q=desk&order=last_heartbeat",
    "/sessions?q=customer-777&order=device",
    "/sessions?order=customer",
    "/sessions/history?span=all&order=ended",
    "/sessions/history?span=all&customer=customer-77777",
    "/sessions/history?span=all&customer=customer",
    "/sessions/history?span=all&reason=timeout&customer=customer-77",
    "/sessions/history?order=customer",
    "/sessions/history?span=all&customer=customer-7777&order=device",
    "/refusals?order=device",
    "/audit?order=actor",
    "/audit?subject=5000",
    "/audit?module=licenses",
    "/sites",
    "/sites?order=customer",
    "/sites/transfers",
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

/// Measures every page, with little data and with much.
pub fn measure(bench: &mut Bench) {
    for (installation, label) in [
        (bench.small(), "10000 licenses"),
        (bench.large(), "1000000 licenses"),
    ] {
        measure_pages(bench, &installation, label);
    }
}

fn measure_pages(bench: &mut Bench, installation: &Installation, label: &str) {
    let heartbeat = heartbeat(installation);
    let server = installation.serve();
    let runtime = bench.runtime.clone();
    runtime.block_on(server.wait_until_ready("/"));
    let program = Program::new(installation, server.port(), heartbeat);
    let browser = Browser::log_in(installation, server.port());
    let until = Instant::now() + ALONE;
    let alone = program.beat(|| Instant::now() < until);
    let is_over = AtomicBool::new(false);
    let (beside, lines) = std::thread::scope(|scope| {
        let beats = scope.spawn(|| program.beat(|| !is_over.load(Ordering::Relaxed)));
        let lines: Vec<Line> = PAGES.iter().map(|path| page(&browser, path)).collect();
        is_over.store(true, Ordering::Relaxed);
        (beats.join().unwrap(), lines)
    });
    add_pages(bench, label, lines);
    for (what, spans) in [("alone", alone), ("beside the pages", beside)] {
        bench.report.add(Line {
            p50_ms: Some(quantile(&spans, 50)),
            p99_ms: Some(quantile(&spans, 99)),
            ..Line::new(format!("heartbeat {what}, {label}"))
        });
    }
    server.stop();
}

/// Adds every page if only pages are measured, else those that are not as they should be, and the slowest ones.
fn add_pages(bench: &mut Bench, label: &str, mut lines: Vec<Line>) {
    let count = lines.len();
    lines.sort_by(|a, b| b.p99_ms.unwrap_or(0.0).total_cmp(&a.p99_ms.unwrap_or(0.0)));
    let good = lines.iter().filter(|line| line.is_good()).count();
    bench.report.add(Line {
        p50_ms: lines[count / 2].p50_ms,
        p99_ms: lines[count / 2].p99_ms,
        note: format!("the median of {count} pages, of which {good} are as wanted; p95 for p99"),
        ..Line::new(format!("panel, {label}"))
    });
    let is_alone = bench.words == ["panel"];
    for (place, line) in lines.into_iter().enumerate() {
        if is_alone || place < SLOWEST || !line.is_good() {
            bench.report.add(line);
        }
    }
}

/// The line of a page: its 95th percentile stands in the column of the 99th.
fn page(browser: &Browser, path: &str) -> Line {
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
    let wanted_kb = if is_list { LIST_KB } else { PAGE_KB };
    Line {
        p50_ms: Some(quantile(&spans, 50)),
        p99_ms: Some(quantile(&spans, 95)),
        p99_wanted_ms: Some(PAGE_MS),
        ..Line::value(
            format!("  {}", if path.is_empty() { "/" } else { path }),
            (kb, "kB"),
            Some(wanted_kb),
        )
    }
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
        join active_sessions s on s.license_id = l.license_id limit 1";
    let row = connection.query_row(of_first, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (key, token): (String, [u8; 16]) = row.unwrap();
    json!({ "session_token": Uuid::from_bytes(token).to_string(), "license_key": key })
}

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
pub struct Browser {
    agent: Agent,
    url: String,
    cookie: String,
}

impl Browser {
    pub fn log_in(installation: &Installation, port: u16) -> Self {
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
    pub fn get(&self, path: &str) -> usize {
        let request = self.agent.get(format!("{}{path}", self.url));
        let mut answer = request.header("Cookie", &self.cookie).call().unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.body_mut().read_to_vec().unwrap().len()
    }
}
