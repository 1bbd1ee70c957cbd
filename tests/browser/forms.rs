//! Forms that are sent by script: the page stays, with everything that is typed elsewhere on it.

use std::time::Duration;

use serde_json::json;

use crate::driver::Chrome;
use crate::setup::{self, expect_no_page_errors};
use crate::support::Server;

/// The text beside the button of the first form of the settings.
const REPORT: &str = "(document.querySelector('#client .told')?.textContent ?? '')";

#[test]
fn settings_are_saved_in_place_and_touch_nothing_else() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    server.json(&["flag", "set", "beta", "--on"]);
    chrome.open_page("/config");
    chrome.script("window.same = history.length;", &json!([]));
    // Fields that stand side by side are on one line, however long their hints are.
    let tops = "new Set(['heartbeat_interval', 'session_timeout', 'session_policy'].map((name) => \
        document.querySelector(`#client [name=${name}]`).getBoundingClientRect().top)).size";
    assert_eq!(chrome.eval(tops), 1);
    let open =
        "document.querySelectorAll('#flags, #flags .row').forEach((row) => { row.open = true; });";
    chrome.script(open, &json!([]));
    let unsaved = chrome.find("#flags [name=description]");
    chrome.write(&unsaved, "not saved yet");
    // Twice: the second form carries the revision that the first one made.
    for interval in ["20", "25"] {
        chrome.fill("Heartbeat interval (seconds)", interval);
        chrome.until(&format!("{REPORT} === ''"));
        chrome.press("Save");
        chrome.until(&format!("{REPORT} === 'Saved.'"));
        let shown = server.json(&["config", "show"]);
        assert_eq!(shown["heartbeat_interval"].to_string(), interval);
    }
    // A fault stands beside its field, with a link that has the focus.
    chrome.fill("Heartbeat interval (seconds)", "0");
    chrome.press("Save");
    chrome.until("document.activeElement.matches('#client form > .note')");
    assert_eq!(
        chrome.eval("document.querySelectorAll('[aria-invalid]').length"),
        1
    );
    // Of two faults, the browser knows one; the server names both at once.
    chrome.fill("Current version", "1.x");
    chrome.press("Save");
    chrome.until("document.querySelectorAll('#client [aria-invalid]').length === 2");
    chrome.until("document.activeElement.matches('#client form > .note')");
    chrome.fill("Heartbeat interval (seconds)", "30");
    chrome.fill("Current version", "1.0.0");
    chrome.press("Save");
    chrome.until(&format!("{REPORT} === 'Saved.'"));
    assert_eq!(
        chrome.eval("document.querySelectorAll('[aria-invalid]').length"),
        0
    );
    assert_eq!(chrome.eval_on(&unsaved, "e.value"), "not saved yet");
    assert_eq!(chrome.eval("document.getElementById('flags').open"), true);
    assert_eq!(chrome.eval("window.same === history.length"), true);
    expect_no_page_errors(&chrome);
}

#[test]
fn a_new_flag_gets_its_row_without_leaving_the_page() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/config");
    chrome.script("window.same = true;", &json!([]));
    chrome.script("document.getElementById('flags').open = true;", &json!([]));
    for (name, count) in [("beta", 1), ("gamma", 2)] {
        let field = chrome.find("[aria-labelledby=new-flag] [name=name]");
        chrome.write(&field, name);
        chrome.press("Add flag");
        chrome.until(&format!(
            "document.querySelectorAll('#flags form[aria-label]').length === {count}"
        ));
        chrome
            .until("document.querySelector('[aria-labelledby=new-flag] [name=name]').value === ''");
    }
    // A flag is a row that opens, and stays open when it is saved.
    let row = "document.querySelector('#flags .row')";
    chrome.script(
        &format!("{row}.querySelector('summary').click();"),
        &json!([]),
    );
    let enabled = chrome.find("#flags .row [name=enabled]");
    chrome.click(&enabled);
    let save = chrome.find("#flags .row button");
    chrome.click(&save);
    chrome.until(&format!(
        "{row}.open && {row}.querySelector('.told')?.textContent === 'Saved.'"
    ));
    chrome.until(&format!(
        "{row}.querySelector('summary').textContent.includes('Off')"
    ));
    assert_eq!(server.json(&["flag", "list"])["flags"][0]["enabled"], false);
    // The same name again is refused in the form for a new flag, and nowhere else.
    let field = chrome.find("[aria-labelledby=new-flag] [name=name]");
    chrome.write(&field, "beta");
    chrome.press("Add flag");
    chrome.until("document.activeElement.matches('[aria-labelledby=new-flag] > .note')");
    assert_eq!(
        chrome.eval("document.querySelectorAll('#flags .note').length"),
        1
    );
    assert_eq!(chrome.eval("window.same"), true);
    let listed = server.json(&["flag", "list"]);
    assert_eq!(listed["flags"].as_array().unwrap().len(), 2);
    expect_no_page_errors(&chrome);
}

#[test]
fn a_login_that_ends_loses_nothing_that_is_typed() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/config");
    chrome.fill("Heartbeat interval (seconds)", "17");
    log_out(&chrome);
    chrome.press("Save");
    chrome.until(&format!("{REPORT}.includes('you have been logged out')"));
    let link = chrome.eval("document.querySelector('#client .told').getAttribute('href')");
    assert!(
        link.as_str().unwrap().contains("/lizenzserver/login?next="),
        "{link}"
    );
    let typed = "document.getElementById('f-heartbeat_interval').value";
    assert_eq!(chrome.eval(typed), "17");
    // Logged in again in another tab, the same form is saved.
    log_in(&chrome);
    chrome.press("Save");
    chrome.until(&format!("{REPORT} === 'Saved.'"));
    assert_eq!(server.json(&["config", "show"])["heartbeat_interval"], 17);
}

/// Ends the login, as another tab might.
fn log_out(chrome: &Chrome) {
    let script = "const csrf_token = document.querySelector('[name=csrf_token]').value; \
        return fetch('/lizenzserver/logout', { method: 'POST', body: new URLSearchParams({ csrf_token }) }).then(() => 1);";
    chrome.script(script, &json!([]));
}

/// Logs in again, as another tab might.
fn log_in(chrome: &Chrome) {
    let script = "return fetch('/lizenzserver/login', { method: 'POST', body: new URLSearchParams(arguments[0]) }).then(() => 1);";
    let credentials = json!([{ "name": "ada", "password": crate::browser::PASSWORD }]);
    chrome.script(script, &credentials);
}

#[test]
fn saved_is_said_only_of_what_is_stored_whatever_other_tabs_do() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/config");
    // The login ends, and another tab makes a new one, while the form is on its way: before it arrives, between its
    // arrival and the answer, and after the answer.
    let hold = "window.held = []; window.send = window.fetch; \
        window.fetch = (...all) => new Promise((go) => window.held.push(() => go(window.send(...all))));";
    let release = "window.fetch = window.send; window.held.splice(0).forEach((go) => go());";
    let new_logins: [fn(&Chrome); 3] = [
        |chrome| {
            log_out(chrome);
            log_in(chrome);
        },
        log_in,
        log_out,
    ];
    for (interval, change) in [11, 12, 13].into_iter().zip(new_logins) {
        chrome.fill("Heartbeat interval (seconds)", &interval.to_string());
        chrome.script(hold, &json!([]));
        chrome.press("Save");
        chrome.until("window.held.length === 1");
        chrome.script("window.fetch = window.send;", &json!([]));
        change(&chrome);
        chrome.script(release, &json!([]));
        chrome.until(&format!("{REPORT} !== ''"));
        let stored = server.json(&["config", "show"])["heartbeat_interval"] == interval;
        let said = chrome.eval(REPORT);
        assert_eq!(said == "Saved.", stored, "{interval}: {said}");
        let typed = "document.getElementById('f-heartbeat_interval').value";
        assert_eq!(chrome.eval(typed), interval.to_string());
    }
    log_in(&chrome);
    chrome.press("Save");
    chrome.until(&format!("{REPORT} === 'Saved.'"));
    assert_eq!(server.json(&["config", "show"])["heartbeat_interval"], 13);
}

#[test]
fn faults_that_the_browser_finds_are_shown_like_those_of_the_server() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/customers/new");
    chrome.until("document.activeElement.name === 'name'");
    chrome.script("window.same = true;", &json!([]));
    chrome.fill("E-mail", "ada");
    chrome.press("Add customer");
    chrome.until("document.activeElement.matches('form > .note.bad')");
    let linked = "[...document.querySelectorAll('form > .note a')].map((a) => a.hash).join()";
    assert_eq!(chrome.eval(linked), "#f-name,#f-email");
    let beside = "[...document.querySelectorAll('[aria-invalid]')].map((f) => \
        document.getElementById(f.getAttribute('aria-describedby').split(' ').at(-1)).textContent).join()";
    let texts = "Please enter a name of at most 200 characters.,Please enter an address such as name@example.org.";
    assert_eq!(chrome.eval(beside), texts);
    assert_eq!(chrome.eval("window.same"), true);
    chrome.fill("Name", "Ada");
    chrome.press("Add customer");
    chrome.until("document.activeElement.matches('form > .note.bad')");
    assert_eq!(chrome.eval(linked), "#f-email");
    chrome.fill("E-mail", "ada@example.org");
    chrome.press("Add customer");
    chrome.until_at("/lizenzserver/customers/1");
    let customers = server.json(&["customer", "list"]);
    assert_eq!(customers["customers"].as_array().unwrap().len(), 1);
    expect_no_page_errors(&chrome);
}

#[test]
fn a_double_click_makes_one_customer() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/customers/new");
    chrome.fill("Name", "Ada");
    // As quick as no hand is, and without the script that disables the button.
    let twice = "const form = document.querySelector('main form'); form.submit(); form.submit();";
    chrome.script(twice, &json!([]));
    chrome.until_at("/lizenzserver/customers/1");
    let customers = server.json(&["customer", "list"]);
    assert_eq!(customers["customers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_lost_server_is_told_beside_what_is_not_updated_or_saved() {
    let Some((mut server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/config");
    chrome.fill("Heartbeat interval (seconds)", "17");
    let monitor = "document.querySelector('[data-live]').dataset.every";
    assert_eq!(chrome.eval(monitor), "30");
    server.kill();
    chrome.press("Save");
    chrome.until(&format!("{REPORT}.includes('cannot be reached')"));
    assert_eq!(
        chrome.eval("document.getElementById('f-heartbeat_interval').value"),
        "17"
    );
    server.run();
    chrome.press("Save");
    chrome.until(&format!("{REPORT} === 'Saved.'"));
    // Every live part says so.
    let quick = "new MutationObserver(() => document.querySelectorAll('[data-live]') \
        .forEach((part) => { part.dataset.every = '1'; })).observe(document, { childList: true, subtree: true });";
    let quick = chrome.on_every_page(quick);
    for page in ["/sessions", "/config"] {
        chrome.open_page(page);
        server.kill();
        chrome.until("/Not updating since \\d+:\\d\\d/.test(document.querySelector('.note.warn')?.innerText)");
        // In the zone of the other times on the page, not in that of the browser.
        let in_zone = "[0, 1, 2].some((minutes) => document.querySelector('.note.warn').innerText.includes(new Intl.DateTimeFormat('en', \
            { timeStyle: 'short', timeZone: 'Europe/Berlin' }).format(Date.now() - minutes * 60000)))";
        assert_eq!(chrome.eval(in_zone), true);
        server.run();
        chrome.until("!document.body.innerText.includes('Not updating since')");
    }
    chrome.on_no_page(&quick);
}

/// The times of the logins, moved into the past by so many minutes.
fn age_logins(server: &Server, minutes: i64) {
    let file = rusqlite::Connection::open(server.database()).unwrap();
    file.busy_timeout(Duration::from_secs(30)).unwrap();
    let sql = "update admin_sessions set seen_at_ms = seen_at_ms - ?1";
    file.execute(sql, [minutes * 60_000]).unwrap();
}

#[test]
fn the_warning_keeps_the_login_alive_and_what_is_typed() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    let soon = "new MutationObserver((_, observer) => { if (document.body) { document.body.dataset.ends = 121; \
        observer.disconnect(); } }).observe(document, { childList: true, subtree: true });";
    let soon = chrome.on_every_page(soon);
    chrome.open_page("/customers/new");
    chrome.on_no_page(&soon);
    chrome.fill("Name", "Ada");
    chrome.until_text("You will be logged out in two minutes");
    age_logins(&server, 50);
    chrome.press("You will be logged out in two minutes. Stay logged in");
    chrome.until("!document.body.innerText.includes('You will be logged out')");
    // Ten minutes more are too many for the request before.
    age_logins(&server, 15);
    chrome.press("Add customer");
    chrome.until_at("/lizenzserver/customers/1");
    expect_no_page_errors(&chrome);
}

#[test]
fn a_form_of_an_ended_login_is_there_again_without_script() {
    let Some((server, mut chrome)) = setup::start() else {
        return;
    };
    server.add_admin("ada", "owner");
    setup::log_in(&mut chrome, "ada");
    chrome.without_script();
    chrome.open_page("/customers/new");
    chrome.fill("Name", "Grace \"Amazing\" Hopper");
    chrome.fill("Note", "Line one");
    age_logins(&server, 61);
    chrome.press("Add customer");
    chrome.until_at("/lizenzserver/login?");
    assert!(
        chrome
            .eval("document.querySelector('.note').innerText")
            .as_str()
            .unwrap()
            .contains("is kept")
    );
    chrome.fill("Name", "ada");
    chrome.fill("Password", crate::browser::PASSWORD);
    chrome.press("Log in");
    chrome.until_at("/lizenzserver/customers/new");
    chrome.until_text("What you typed is below again");
    let typed =
        "[...document.querySelectorAll('#f-name, #f-note')].map((field) => field.value).join()";
    assert_eq!(chrome.eval(typed), "Grace \"Amazing\" Hopper,Line one");
    assert_eq!(server.json(&["customer", "list"])["customers"], json!([]));
    chrome.press("Add customer");
    chrome.until_at("/lizenzserver/customers/1");
}

#[test]
fn the_fields_and_the_note_of_a_license_are_saved_in_place_and_back_leaves_in_one_step() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    server.json(&["customer", "add", "Ada"]);
    server.json(&["customer", "add", "Grace"]);
    server.json(&["license", "issue", "--customer", "1"]);
    chrome.size(1280, 400);
    chrome.open_page("/licenses/1");
    chrome.press("Edit");
    chrome.until_at("/lizenzserver/licenses/1/edit");
    chrome.script("window.same = true;", &json!([]));
    let said = "document.querySelector('main form .told')?.textContent === 'Saved.' && \
        document.getElementById('say').textContent === 'Saved.'";
    for (note, customer, name) in [
        ("First", "Ada (#1)", "Ada"),
        ("Second", "Grace (#2)", "Grace"),
    ] {
        chrome.fill("Note", note);
        chrome.fill("Customer", customer);
        let at = chrome.eval("(scrollTo(0, 250), scrollY)");
        chrome.press("Save changes");
        chrome.until(said);
        assert_eq!(chrome.eval("scrollY"), at);
        chrome.until(&format!(
            "document.getElementById('what').innerText.startsWith({})",
            json!(name)
        ));
        assert_eq!(chrome.eval("document.getElementById('f-note').value"), note);
    }
    // A fault stands beside its field.
    chrome.fill("Customer", "Nobody");
    chrome.press("Save changes");
    chrome.until("document.activeElement.matches('form > .note.bad')");
    assert_eq!(
        chrome.eval("document.querySelector('[aria-invalid]').name"),
        "customer"
    );
    chrome.fill("Customer", "Grace (#2)");
    chrome.press("Save changes");
    chrome.until(said);
    assert_eq!(chrome.eval("window.same"), true);
    assert!(
        chrome
            .eval("document.querySelector('main form a.btn').textContent")
            .as_str()
            == Some("Back")
    );
    chrome.script("history.back();", &json!([]));
    chrome.until("location.pathname === '/lizenzserver/licenses/1'");
    chrome.until_text("Second");
    expect_no_page_errors(&chrome);
}

/// Values for the fields of a form that have a pattern, on both sides of its border; and a fault in another field, so that nothing
/// is saved.
struct Samples {
    page: &'static str,
    path: &'static str,
    fault: (&'static str, &'static str),
    fields: &'static [(&'static str, &'static [&'static str])],
}

const SHA256: &str = "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef";
const NO_SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeg";
const VERSIONS: &[&str] = &["1.2.3", " v1.2.3 ", "1.2", "1.2.3.4", "x", "V0.0.1"];
const NUMBERS: &[&str] = &["7", " +7 ", "seven", "-7", "7.5", "0x7"];
const SAMPLES: &[Samples] = &[
    Samples {
        page: "/customers/new",
        path: "/customers/new",
        fault: ("name", ""),
        fields: &[("email", &["", "a@b", "a b@c d", "ada", "@b", "a@"])],
    },
    Samples {
        page: "/releases/new",
        path: "/releases/new",
        fault: ("url", "none"),
        fields: &[
            ("version", VERSIONS),
            ("channel", &["stable", " beta-2 ", "Beta", "a b", "a_b"]),
            ("sha256", &["", "00", SHA256, NO_SHA256]),
        ],
    },
    Samples {
        page: "/releases/new",
        path: "/releases/new",
        fault: ("channel", "Stable!"),
        fields: &[(
            "url",
            &[
                "",
                "https://example.org/a",
                "http://example.org",
                "example.org",
            ],
        )],
    },
    Samples {
        page: "/plans/new",
        path: "/plans/new",
        fault: ("name", ""),
        fields: &[("code", &["pro", " pro-1 ", "Pro", "-pro", "pro_1"])],
    },
    Samples {
        page: "/products/new",
        path: "/products/new",
        fault: ("name", ""),
        fields: &[("slug", &["", "pro", " pro-1 ", "Pro", "-pro", "pro_1"])],
    },
    Samples {
        page: "/config?at=client",
        path: "/config/update",
        fault: ("client_name", ""),
        fields: &[
            ("current_version", VERSIONS),
            ("heartbeat_interval", NUMBERS),
            ("offline_days", NUMBERS),
        ],
    },
];

#[test]
fn the_patterns_of_fields_refuse_what_the_server_refuses() {
    let Some((_server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let compare = "const [path, [wrong, fault], fields] = arguments;
        const form = [...document.querySelectorAll('form')].find((one) => one.getAttribute('action').endsWith(path));
        const told = [];
        return (async () => {
          for (const [name, samples] of fields) for (const sample of samples) {
            const field = form.elements[name];
            const before = field.value;
            field.value = sample;
            const says = field.validity.valid;
            const sent = new URLSearchParams(new FormData(form));
            sent.set(wrong, fault);
            const answer = await fetch(form.action, { method: 'POST', body: sent });
            const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
            const accepts = !page.getElementById(`e-${name}`);
            field.value = before;
            if (answer.status !== 422 || says !== accepts) told.push(`${path} ${name} ${sample}: ${says}, ${accepts}, ${answer.status}`);
          }
          return told;
        })();";
    for samples in SAMPLES {
        chrome.open_page(samples.page);
        let found = chrome.script(
            compare,
            &json!([samples.path, samples.fault, samples.fields]),
        );
        assert_eq!(found, json!([]));
    }
}
