//! Everything can be done with the keys alone, and one sees where one is.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::browser::PASSWORD;
use crate::driver::{Chrome, ENTER, ESCAPE, SPACE, TAB};
use crate::scene::{self, pages};
use crate::shop;
use crate::support::beat;

/// All that must be reached; of radio buttons one, as browsers do it.
const STOPS: &str = r#"
const seen = (e) => e.checkVisibility() && !e.closest('details:not([open]) > :not(summary)');
window.stops = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter((e) => seen(e) && !e.disabled && e.type !== 'hidden' && e.type !== 'radio' && e.tabIndex >= 0);
document.activeElement?.blur();
getSelection().removeAllRanges();
scrollTo(0, 0);
window.met = [];
if (!window.meet) {
  // The key that is about to move the focus on: what the one before has led to is there to be seen.
  window.meet = (event) => { if (event.key === 'Tab') met.push(stop()); };
  addEventListener('keydown', meet, true);
}
return stops.length;
"#;

/// Tells where the focus is: its number, and what is wrong with how it shows.
const STOP: &str = r#"
window.stop = () => {
const e = document.activeElement, at = window.stops.indexOf(e);
if (!e || e === document.body || at < 0) return [at, null];
const box = e.getBoundingClientRect(), style = getComputedStyle(e);
const name = e.tagName.toLowerCase() + ' "' + (e.getAttribute('aria-label') ?? e.textContent.trim() ?? '').slice(0, 40) + (e.name ?? '') + '"';
// A field for a date has several stops inside, which the browser marks by itself.
if (e.type !== 'date' && (style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2)) return [at, 'no ring on ' + name];
const x = Math.min(Math.max(box.left + box.width / 2, 1), innerWidth - 1);
const ys = [box.top + 2, box.top + box.height / 2, box.bottom - 2].filter((y) => y > 0 && y < innerHeight);
const top = ys.map((y) => document.elementFromPoint(x, y));
if (!top.some((t) => t && (e.contains(t) || t.contains(e)) && !t.matches('.bar'))) return [at, 'one does not see ' + name];
const bar = document.querySelector('.bar');
if (bar && getComputedStyle(bar).position === 'sticky' && !bar.contains(e) && !e.matches('.skip') && box.height < 200
    && box.top < bar.getBoundingClientRect().bottom - 1) return [at, 'behind the bar: ' + name];
return [at, null];
};
"#;

/// Where the focus has been since the last time, and where it is now.
const MET: &str = "return [...met.splice(0), stop()];";
/// Tabs in one call, at most.
const TABS: i64 = 40;

/// Goes through the page with Tab; what is wrong on the way.
fn walk(chrome: &Chrome, what: &str, wrong: &mut String) {
    let begin = format!("{STOP}{STOPS}");
    let count = chrome.script(&begin, &json!([])).as_i64().unwrap();
    let mut missed: BTreeSet<i64> = (0..count).collect();
    // A field for a date has four stops of its own.
    let mut left = count * 4 + 4;
    // A page that begins with the focus in the middle is gone through beyond its end.
    while left > 0 && !missed.is_empty() {
        let tabs = left.min(TABS).min(i64::try_from(missed.len()).unwrap());
        left -= tabs;
        chrome.keys(&TAB.repeat(usize::try_from(tabs).unwrap()));
        let met = chrome.script(MET, &json!([]));
        let met = met.as_array().unwrap();
        assert!(
            met.len() > usize::try_from(tabs).unwrap(),
            "{what}: {met:?}"
        );
        for stop in met {
            missed.remove(&stop[0].as_i64().unwrap());
            if let Value::String(fault) = &stop[1] {
                writeln!(wrong, "{what}: {fault}").unwrap();
            }
        }
    }
    if !missed.is_empty() {
        let names = chrome.script(
            "return arguments[0].map((at) => window.stops[at].outerHTML.slice(0, 90));",
            &json!([missed]),
        );
        writeln!(wrong, "{what}: Tab misses {names}").unwrap();
    }
}

#[test]
fn tab_reaches_everything_and_the_focus_is_seen() {
    let Some((server, chrome)) = scene::owner() else {
        return;
    };
    let shop = shop::open(&server, "");
    let mut wrong = String::new();
    for path in pages(&shop, &mut wrong) {
        for (width, height) in [(1280, 500), (320, 500)] {
            chrome.size(width, height);
            chrome.open_page(&path);
            walk(&chrome, &format!("{path} {width}"), &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn one_logs_in_with_keys_and_skips_to_what_matters() {
    let Some((server, chrome)) = scene::stage() else {
        return;
    };
    server.admin("ada", "owner");
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
fn single_keys_lead_to_search_sections_and_the_new_one() {
    let Some((_server, chrome)) = scene::owner() else {
        return;
    };
    chrome.open_page("/customers");
    chrome.keys("/");
    chrome.until("document.activeElement.type === 'search'");
    // In a field they are letters.
    chrome.keys("gc");
    chrome.until("document.activeElement.value === 'gc'");
    chrome.open_page("/audit");
    chrome.keys("gc");
    chrome.until_at("/lizenzserver/customers");
    chrome.keys("n");
    chrome.until_at("/lizenzserver/customers/new");
}

#[test]
fn a_license_is_issued_with_keys_alone() {
    let Some((server, chrome)) = scene::owner() else {
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
    chrome.until_said("License issued");
    let all = server.json(&["license", "list"]);
    assert_eq!(all["licenses"].as_array().unwrap().len(), 1);
}

#[test]
fn a_session_is_ended_with_keys_alone_after_a_second_thought() {
    let Some((server, chrome)) = scene::owner() else {
        return;
    };
    let key = server.license(1);
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
            .call("session/heartbeat", &beat(&key, &token))
            .status,
        200
    );
    chrome.keys(ENTER);
    chrome.until("document.activeElement.closest('dialog') && document.activeElement.matches('[data-close]')");
    chrome.tab_to("End session");
    chrome.keys(ENTER);
    chrome.until_at("/lizenzserver/sessions?done=");
    let heard = program.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(heard.body["end_reason"], "forced", "{heard:?}");
}
