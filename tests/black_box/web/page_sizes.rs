//! Size limits of the panel's pages in a large shop.

use std::fmt::Write as _;

use crate::scene::change;
use crate::shop;
use crate::support::Server;

/// Maximum size of a page in bytes.
const PAGE_MAX: usize = 30_000;

/// SQL that adds more rows of every kind than a page shows.
const MANY_ROWS: &str = "
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 200)
    insert into customers (name, email, company, note, created_at_ms)
    select 'Werkstatt Nummer ' || i, 'werkstatt-' || i || '@example.org', 'Werkstatt ' || i || ' GmbH', 'A note', i from n;
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 300)
    insert into session_history (session_id, session_token, license_id, hardware_id, machine_id, client_version,
        address, started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason)
    select 1000 + i, randomblob(16), 1, 'hash of a device ' || i, 'device-' || i, '1.0.0', '192.0.2.7',
        now.ms - i * 60000, now.ms - i * 50000, now.ms - i * 40000, 'normal'
    from n, (select max(started_at_ms) as ms from active_sessions) as now;
    with recursive n(i) as (select 10 union all select i + 1 from n where i < 110)
    insert into releases (version, channel, notes, download_url, sha256, state, released_at_ms)
    select '2.' || i || '.0', 'stable', 'What is new in it: this, that, and what else there is.',
        'https://example.org/downloads/app-2.' || i || '.0.zip', null, 'released', 1790000000000 + i from n;
";

#[test]
fn every_page_of_a_large_shop_is_under_30_kb() {
    let server = Server::start();
    let shop = shop::add_sample_data(&server, "");
    let programs = server.client();
    let arguments = ["license", "issue", "--customer", "1", "--count", "130"];
    let issued = server.json(&arguments);
    for (number, license) in issued["licenses"].as_array().unwrap().iter().enumerate() {
        let key = license["license_key"].as_str().unwrap();
        programs.session(key, &format!("desk-{number}.office.example.org"));
    }
    change(&server, MANY_ROWS);
    let mut panel = server.logged_in_browser("owner");
    let mut wrong = String::new();
    let mut seen = 0;
    for (_, route) in shop::routes().iter().filter(|(method, _)| method == "GET") {
        let Some(path) = shop.path(route) else {
            continue;
        };
        let answer = panel.get(&path);
        let kind = answer.header("content-type").unwrap_or_default();
        if kind.starts_with("text/html") {
            seen += 1;
            if answer.text.len() > PAGE_MAX {
                writeln!(wrong, "{path}: {}", answer.text.len()).unwrap();
            }
        }
    }
    assert!(wrong.is_empty() && seen > 5, "{seen}\n{wrong}");
}
