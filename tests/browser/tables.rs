//! Tables fit their frames, whatever names they show: no name pushes a column or an action out of view.

use std::fmt::Write as _;

use serde_json::json;

use crate::axe::OVERFLOWING;
use crate::driver::{Chrome, TAB};
use crate::setup::{self, pages};
use crate::shop;
use crate::support::Server;

/// A wide window, one between the widths at which columns disappear, and phones.
const WIDTHS: &[u32] = &[1280, 768, 390, 320];
/// Gives everything that has a name the longest one that the server takes.
const STRETCH: &str = "
update customers set name = substr(:long, 1, 200), company = substr(:long, 1, 200), email = substr(:long, 1, 240) || '@example.org'
where erased_at_ms is null;
update devices set machine_id = :long, hardware_id = device_id || substr(:long, 5);
update session_history set machine_id = :long, hardware_id = :long;
update plans set name = substr(:long, 1, 100);
update client_configs set client_name = substr(:long, 1, 92) || product_id, heartbeat_interval = 1;
update releases set channel = 'nightly-builds-for-the-testers-1', notes = :long;
update feature_flags set description = :long;
update admin_sessions set browser = :long, address = '2001:db8:1111:2222:3333:4444:5555:6666';
update active_sessions set address = '2001:db8:1111:2222:3333:4444:5555:6666';
update licenses set note = :long;
insert into refusals (at_ms, last_at_ms, calls, code, call, product_id, license_id, masked_key, hardware_id, machine_id,
                      client_version, domain, address, network, detail)
select 1700000000000, 1700000050000, 1234, 'device_limit_reached', 'session/heartbeat', 1, license_id,
       case when license_id is null then 'T6FXC-WD5PK (25)' else '' end, :long, :long, '100.200.300', '',
       '2001:db8:1111:2222:3333:4444:5555:6666', '', 'hardware_fingerprint'
from (select 1 as license_id union all select null);
";

/// Appends what does not fit on the open page.
fn check(chrome: &Chrome, what: &str, problems: &mut String) {
    chrome.eval("document.querySelectorAll('details').forEach((d) => { d.open = true; })");
    for &width in WIDTHS {
        chrome.width(width);
        let found = chrome.script(OVERFLOWING, &json!([]));
        for line in found.as_array().unwrap() {
            writeln!(problems, "{what} {width}: {}", line.as_str().unwrap()).unwrap();
        }
    }
}

/// Checks these pages, in German, whose words are longer.
pub fn expect_all_fits(chrome: &Chrome, paths: &[String]) {
    let mut problems = String::new();
    chrome.cookie("lang", "de");
    for path in paths {
        chrome.open_page(path);
        check(chrome, path, &mut problems);
    }
    chrome.width(1280);
    assert!(problems.is_empty(), "{problems}");
}

fn stretch(server: &Server) {
    let long = "Donaudampfschifffahrtsgesellschaft ".repeat(8);
    let long: String = long.chars().take(255).collect();
    let file = rusqlite::Connection::open(server.database()).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(30))
        .unwrap();
    // For the triggers of the search index.
    license_server::db::register_functions(&file).unwrap();
    for statement in STRETCH.split(';').filter(|text| !text.trim().is_empty()) {
        let uses_long = statement.contains(":long");
        let long: &[(&str, &dyn rusqlite::ToSql)] = &[(":long", &long)];
        file.execute(statement, if uses_long { long } else { &[] })
            .unwrap();
    }
}

#[test]
fn the_longest_names_push_nothing_out_of_view() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let shop = shop::add_sample_data(&server, "");
    server.json(&["product", "add", "Second", "--slug", "second"]);
    stretch(&server);
    let mut problems = String::new();
    let paths = pages(&shop, &mut problems);
    assert!(problems.is_empty(), "{problems}");
    expect_all_fits(&chrome, &paths);
    // All of a text that is cut short is shown to whoever taps it, or reaches its row with Tab.
    chrome.open_page("/customers");
    let cut = "[...document.querySelectorAll('tbody .clip')].filter((e) => e.scrollHeight > e.clientHeight + 1).length";
    let before = chrome.eval(cut).as_u64().unwrap();
    assert!(before > 2, "{before}");
    chrome.eval("[...document.querySelectorAll('tbody span.clip[tabindex]')].find((e) => e.checkVisibility()).focus()");
    chrome.until(&format!("{cut} < {before}"));
    chrome.eval("document.querySelector('tbody a').focus()");
    chrome.keys(TAB);
    let shown = "[...document.activeElement.closest('tr').querySelectorAll('.clip')].every((e) => e.scrollHeight <= e.clientHeight + 1)";
    chrome.until(shown);
}
