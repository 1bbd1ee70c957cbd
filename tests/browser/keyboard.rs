//! The panel works by keyboard alone, and the focus is visible.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::axe;
use crate::browser::PASSWORD;
use crate::driver::{Chrome, DOWN, ENTER, ESCAPE, SPACE, TAB};
use crate::setup::{self, pages};
use crate::shop;
use crate::support::heartbeat_body;

/// Collects every element that Tab must reach; radio buttons are left out, since browsers stop at one per group.
const COLLECT_STOPS: &str = r#"
const seen = (e) => e.checkVisibility() && !e.closest('details:not([open]) > :not(summary)');
window.stops = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter((e) => seen(e) && !e.disabled && e.type !== 'hidden' && e.type !== 'radio' && e.tabIndex >= 0);
document.activeElement?.blur();
getSelection().removeAllRanges();
scrollTo(0, 0);
window.met = [];
if (!window.meet) {
  // Called before Tab moves the focus: the previous stop is visible now.
  window.meet = (event) => { if (event.key === 'Tab') met.push(stop()); };
  addEventListener('keydown', meet, true);
}
return stops.length;
"#;

/// Defines `stop()`: the number of the focused element, and what is wrong with how the focus shows.
const STOP_FUNCTION: &str = r#"
window.stop = () => {
const e = document.activeElement, at = window.stops.indexOf(e);
if (!e || e === document.body || at < 0) return [at, null];
const box = e.getBoundingClientRect(), style = getComputedStyle(e);
const name = e.tagName.toLowerCase() + ' "' + (e.getAttribute('aria-label') ?? e.textContent.trim() ?? '').slice(0, 40) + (e.name ?? '') + '"';
// A date field has several stops inside, which the browser marks by itself.
if (e.type !== 'date' && (style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2)) return [at, 'no ring on ' + name];
const x = Math.min(Math.max(box.left + box.width / 2, 1), innerWidth - 1);
const ys = [box.top + 2, box.top + box.height / 2, box.bottom - 2].filter((y) => y > 0 && y < innerHeight);
const top = ys.map((y) => document.elementFromPoint(x, y));
if (!top.some((t) => t && (e.contains(t) || t.contains(e)) && !t.matches('.bar'))) return [at, 'not visible: ' + name];
const bar = document.querySelector('.bar');
if (bar && getComputedStyle(bar).position === 'sticky' && !bar.contains(e) && !e.matches('.skip') && box.height < 200
    && box.top < bar.getBoundingClientRect().bottom - 1) return [at, 'behind the bar: ' + name];
return [at, null];
};
"#;

/// The stops since the last call, and the current one.
const VISITED: &str = "return [...met.splice(0), stop()];";
/// Most Tab keys in one call.
const TABS: i64 = 40;

/// Presses Tab through the page, and appends what is wrong to `problems`.
fn tab_through(chrome: &Chrome, what: &str, problems: &mut String) {
    let begin = format!("{STOP_FUNCTION}{COLLECT_STOPS}");
    let count = chrome.script(&begin, &json!([])).as_i64().unwrap();
    let mut unvisited: BTreeSet<i64> = (0..count).collect();
    // A date field has four stops.
    let mut presses_left = count * 4 + 4;
    // Tab wraps around, for pages that begin with the focus in the middle.
    while presses_left > 0 && !unvisited.is_empty() {
        let tabs = presses_left
            .min(TABS)
            .min(i64::try_from(unvisited.len()).unwrap());
        presses_left -= tabs;
        chrome.keys(&TAB.repeat(usize::try_from(tabs).unwrap()));
        let visited = chrome.script(VISITED, &json!([]));
        let visited = visited.as_array().unwrap();
        assert!(
            visited.len() > usize::try_from(tabs).unwrap(),
            "{what}: {visited:?}"
        );
        for stop in visited {
            unvisited.remove(&stop[0].as_i64().unwrap());
            if let Value::String(fault) = &stop[1] {
                writeln!(problems, "{what}: {fault}").unwrap();
            }
        }
    }
    if !unvisited.is_empty() {
        let names = chrome.script(
            "return arguments[0].map((at) => window.stops[at].outerHTML.slice(0, 90));",
            &json!([unvisited]),
        );
        writeln!(problems, "{what}: Tab misses {names}").unwrap();
    }
}

#[test]
fn tab_reaches_every_control_and_the_focus_is_visible() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let shop = shop::add_sample_data(&server, "");
    let mut problems = String::new();
    let everything = std::env::var_os("LICENSE_TEST_ROUNDS").is_some();
    for (number, path) in pages(&shop, &mut problems).into_iter().enumerate() {
        // The pages take turns to be wide and narrow; with `LICENSE_TEST_ROUNDS` each is both.
        for (turn, width) in [1280, 320].into_iter().enumerate() {
            if number % 2 != turn && !everything {
                continue;
            }
            chrome.size(width, 500);
            chrome.open_page(&path);
            let what = format!("{path} {width}");
            let mut found = String::new();
            tab_through(&chrome, &what, &mut found);
            // On a busy machine a key may be handled before the page is painted with the focus of the one before it.
            if !found.is_empty() {
                found.clear();
                chrome.open_page(&path);
                tab_through(&chrome, &what, &mut found);
            }
            problems.push_str(&found);
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn login_and_the_skip_link_work_by_keyboard() {
    let Some((server, chrome)) = setup::start() else {
        return;
    };
    server.add_admin("ada", "owner");
    chrome.open_page("/login?next=/lizenzserver/customers");
    chrome.tab_to("Name");
    chrome.keys(&format!("ada{TAB}{PASSWORD}{ENTER}"));
    chrome.until_at("/lizenzserver/customers");
    chrome.keys(TAB);
    let skip = chrome.eval(
        "[document.activeElement.matches('.skip'), document.activeElement.getBoundingClientRect().width > 20]",
    );
    assert_eq!(skip, json!([true, true]));
    chrome.keys(ENTER);
    chrome.until("location.hash === '#main'");
    chrome.keys(TAB);
    chrome.until("document.querySelector('main').contains(document.activeElement)");
}

#[test]
fn single_keys_open_search_sections_and_new_items() {
    let Some((_server, chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/customers");
    chrome.keys("/");
    chrome.until("document.activeElement.type === 'search'");
    // In a field they are typed.
    chrome.keys("gc");
    chrome.until("document.activeElement.value === 'gc'");
    chrome.open_page("/audit");
    chrome.keys("gc");
    chrome.until_at("/lizenzserver/customers");
    chrome.keys("n");
    chrome.until_at("/lizenzserver/customers/new");
}

#[test]
fn the_search_suggests_results_and_opens_one_by_keyboard() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    let key = server.issue_license(1);
    chrome.open_page("/customers");
    chrome.keys("/ad");
    let expanded = "document.activeElement.getAttribute('aria-expanded') === 'true'";
    chrome.until(expanded);
    // One customer, the license, and the link to all results, besides what the manual says about "admin".
    let found = "[...document.querySelectorAll('#found a[role=option]')]";
    let of_manual = "a.pathname.startsWith('/lizenzserver/help')";
    chrome.until(&format!(
        "{found}.filter((a) => !({of_manual})).length === 3"
    ));
    let count = format!("{found}.length - 1");
    chrome.until(&format!(
        "document.getElementById('say').textContent.includes({count})"
    ));
    let active =
        "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))";
    chrome.keys(DOWN);
    chrome.until(&format!(
        "{active}?.getAttribute('aria-selected') === 'true' && /Ada/.test({active}.textContent)"
    ));
    chrome.keys(DOWN);
    chrome.until(&format!("{active}?.textContent.includes('{key}')"));
    chrome.keys(ESCAPE);
    chrome.until("document.activeElement.getAttribute('aria-expanded') === 'false' && document.activeElement.value === 'ad'");
    chrome.keys(DOWN);
    chrome.until(expanded);
    chrome.keys(&format!("{DOWN}{DOWN}{ENTER}"));
    chrome.until_at("/lizenzserver/licenses/1");
    // A whole key needs no choice.
    chrome.keys(&format!("/{key}{ENTER}"));
    chrome.until_at("/lizenzserver/licenses/1");
    chrome.open_page("/customers");
    chrome.keys("/ad");
    chrome.until(expanded);
    axe::expect_accessible(&chrome, "suggestions");
    setup::expect_no_page_errors(&chrome);
    chrome.without_script();
    chrome.open_page("/customers");
    let field = chrome.find("#q");
    chrome.write(&field, &format!("ada{ENTER}"));
    chrome.until_at("/lizenzserver/search?q=ada");
    chrome.until_text(&key);
}

#[test]
fn a_license_is_issued_by_keyboard() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/licenses");
    chrome.keys("n");
    chrome.until_at("/lizenzserver/licenses/new");
    chrome.tab_to("Customer");
    chrome.keys("Grace");
    chrome.tab_to("Add this customer");
    chrome.keys(SPACE);
    chrome.tab_to("Issue license");
    chrome.keys(ENTER);
    chrome.until_text("License issued");
    let all = server.json(&["license", "list"]);
    assert_eq!(all["licenses"].as_array().unwrap().len(), 1);
}

#[test]
fn a_session_is_ended_by_keyboard_after_closing_the_dialog_once() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let key = server.issue_license(1);
    let program = server.client();
    let token = program.session(&key, "desk");
    chrome.open_page("/sessions");
    chrome.tab_to("End session of Ada on desk");
    chrome.keys(ENTER);
    chrome.until("document.activeElement.closest('dialog') && document.activeElement.matches('[data-close]')");
    chrome.keys(ESCAPE);
    chrome.until(
        "!document.querySelector('dialog') && document.activeElement.matches('[data-dialog]')",
    );
    assert_eq!(
        program
            .call("session/heartbeat", &heartbeat_body(&key, &token))
            .status,
        200
    );
    chrome.keys(ENTER);
    chrome.until("document.activeElement.closest('dialog') && document.activeElement.matches('[data-close]')");
    chrome.tab_to("End session");
    chrome.keys(ENTER);
    chrome.until_text("Session ended.");
    let response = program.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(response.body["end_reason"], "forced", "{response:?}");
}
