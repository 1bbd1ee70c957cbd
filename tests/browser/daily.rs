//! What a shop's support does every day, each in at most four clicks and three pages, from the overview on. The keys for the
//! search (`/`) and for sections (`g` and a letter) are no clicks; `LICENSE_TEST_SHOW=1` prints the figures.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::driver::{Chrome, DOWN, ENTER};
use crate::setup::{self, expect_no_page_errors};
use crate::support::{Server, heartbeat_body, identity};

const CLICKS_MAX: u32 = 4;
const PAGES_MAX: u64 = 3;
/// Counts the pages that a window has loaded.
const COUNT_PAGES: &str = "sessionStorage.pages = Number(sessionStorage.pages ?? 0) + 1;";
const CUSTOMER: &str = "Nordlicht Software";
const MAIL: &str = "orders@nordlicht.example";

/// A server and a browser on its overview, where each task begins.
struct Office {
    server: Server,
    chrome: Chrome,
}

impl Office {
    /// `None` if no browser is installed.
    fn open() -> Option<Self> {
        let (server, chrome) = setup::start_with_owner()?;
        server.json(&["customer", "add", CUSTOMER, "--email", MAIL]);
        chrome.on_every_page(COUNT_PAGES);
        Some(Self { server, chrome })
    }

    /// A license of the customer.
    fn license(&self) -> String {
        let issue = ["license", "issue", "--customer", CUSTOMER];
        let issued = self.server.json(&issue);
        issued["licenses"][0]["license_key"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn shown(&self, key: &str) -> Value {
        self.server.json(&["license", "show", key])
    }

    /// Does a task from the overview on, and checks its effort.
    fn task(&mut self, name: &str, work: impl FnOnce(&mut Chrome, &Server)) {
        self.chrome.open_page("");
        self.chrome.allow_clipboard();
        self.chrome.eval("sessionStorage.pages = 0");
        (self.chrome.clicks, self.chrome.typed) = (0, 0);
        work(&mut self.chrome, &self.server);
        expect_no_page_errors(&self.chrome);
        let (clicks, pages) = (
            self.chrome.clicks,
            self.chrome.eval("Number(sessionStorage.pages)"),
        );
        if std::env::var_os("LICENSE_TEST_SHOW").is_some() {
            let line = format!("{name}: {clicks} clicks, {pages} pages\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        assert!(clicks <= CLICKS_MAX, "{name}: {clicks} clicks");
        assert!(
            pages.as_u64().unwrap() <= PAGES_MAX,
            "{name}: {pages} pages"
        );
    }
}

/// Searches as somebody does who has both hands at the keyboard, and opens the first result.
fn find(chrome: &Chrome, words: &str) {
    chrome.keys(&format!("/{words}"));
    chrome.until("document.querySelector('#found a[role=option]') && document.activeElement.getAttribute('aria-expanded') === 'true'");
    let suggested = format!(
        "document.querySelector('#found').dataset.said && document.activeElement.value === {}",
        json!(words)
    );
    chrome.until(&suggested);
    chrome.keys(&format!("{DOWN}{ENTER}"));
    chrome.until("location.pathname !== '/lizenzserver' && document.readyState === 'complete'");
}

#[test]
fn a_customer_is_found_by_mail_address() {
    let Some(mut office) = Office::open() else {
        return;
    };
    office.task("find by mail address", |chrome, _| {
        find(chrome, MAIL);
        chrome.until_at("/lizenzserver/customers/1");
        chrome.until_text(CUSTOMER);
    });
}

#[test]
fn a_new_customer_gets_a_license_whose_key_is_copied() {
    let Some(mut office) = Office::open() else {
        return;
    };
    office.license();
    office.task("new customer, license, copied key", |chrome, server| {
        chrome.press("Issue license");
        chrome.until_at("/lizenzserver/licenses/new");
        chrome.fill("Customer", "Grace Hopper");
        let new = chrome.field("Add this customer");
        chrome.click(&new);
        chrome.press("Issue license");
        chrome.until_text("License issued");
        let copy = chrome.find("main [data-copy]");
        chrome.click(&copy);
        chrome.until("document.getElementById('say').textContent === 'Copied'");
        let issued = server.json(&["license", "list"])["licenses"][0].clone();
        assert_eq!(issued["customer"], "Grace Hopper", "{issued}");
        assert_eq!(
            chrome.eval("navigator.clipboard.readText()"),
            issued["license_key"]
        );
    });
}

#[test]
fn a_device_is_released_by_its_name() {
    let Some(mut office) = Office::open() else {
        return;
    };
    let key = office.license();
    let program = office.server.client();
    assert_eq!(
        program
            .call("activate", &identity(&key, "old laptop"))
            .status,
        201
    );
    office.task("free a device by its name", |chrome, _| {
        find(chrome, "old laptop");
        chrome.press("Release old laptop");
        chrome.until("document.querySelector('dialog[open]')");
        chrome.press("Release");
        chrome.until("!document.querySelector('dialog') && document.readyState === 'complete'");
        chrome.until_text("No device");
    });
    assert_eq!(office.shown(&key)["devices"], json!([]));
}

#[test]
fn a_session_is_ended_by_the_name_of_its_device() {
    let Some(mut office) = Office::open() else {
        return;
    };
    let key = office.license();
    let program = office.server.client();
    let token = program.session(&key, "desk in the office");
    office.task("end a session", |chrome, _| {
        find(chrome, "desk in the office");
        chrome.press("End session");
        chrome.until("document.querySelector('dialog[open]')");
        chrome.press("End session");
        chrome.until("!document.querySelector('dialog') && document.readyState === 'complete'");
        chrome.until_text("No session");
    });
    let response = program.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(response.body["end_reason"], "forced", "{response:?}");
}

#[test]
fn a_license_is_extended_by_a_year() {
    let Some(mut office) = Office::open() else {
        return;
    };
    let key = office.license();
    office
        .server
        .json(&["license", "extend", &key, "--until", "2030-06-30"]);
    office.task("extend by a year", |chrome, _| {
        find(chrome, &key);
        chrome.press("Extend");
        chrome.until_at("/lizenzserver/licenses/1/extend");
        chrome.fill("Extend by", "365");
        chrome.press("Extend");
        chrome.until("location.pathname === '/lizenzserver/licenses/1' && document.readyState === 'complete'");
    });
    let until = office.shown(&key)["valid_until"].to_string();
    assert!(until.contains("2031-06-30"), "{until}");
}

#[test]
fn a_refunded_license_is_revoked() {
    let Some(mut office) = Office::open() else {
        return;
    };
    let key = office.license();
    office.task("refund", |chrome, _| {
        find(chrome, &key);
        chrome.press("Revoke permanently");
        chrome.until("document.querySelector('dialog[open]')");
        let typed = chrome.find("dialog input[type=text]");
        chrome.write(&typed, key.rsplit('-').next().unwrap());
        chrome.press("Revoke permanently");
        chrome.until("!document.querySelector('dialog') && document.readyState === 'complete'");
        chrome.until_text("Revoked");
    });
    assert_eq!(office.shown(&key)["state"], "revoked");
}

#[test]
fn a_version_is_published_and_made_current() {
    let Some(mut office) = Office::open() else {
        return;
    };
    office.task("publish and make current", |chrome, _| {
        chrome.keys("gr");
        chrome.until_at("/lizenzserver/releases");
        chrome.press("Add release");
        chrome.until_at("/lizenzserver/releases/new");
        chrome.fill("Version", "2.5.0");
        let current = chrome.field("Make this the current version");
        chrome.click(&current);
        chrome.press("Add release");
        chrome.until("location.pathname.endsWith('/2.5.0') && document.readyState === 'complete'");
    });
    assert_eq!(
        office.server.json(&["config", "show"])["current_version"],
        "2.5.0"
    );
}

#[test]
fn why_somebody_was_refused_yesterday_is_on_the_page_of_the_license() {
    let Some(mut office) = Office::open() else {
        return;
    };
    let key = office.license();
    let program = office.server.client();
    let body = identity(&key, "their only laptop");
    let refused = program.call("session/start", &body);
    assert_eq!(refused.code(), "device_not_activated");
    let file = rusqlite::Connection::open(office.server.database()).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(30))
        .unwrap();
    let yesterday =
        "update refusals set at_ms = at_ms - 86400000, last_at_ms = last_at_ms - 86400000";
    crate::support::eventually("the refusal is stored", || {
        file.execute(yesterday, ()).unwrap() == 1
    });
    office.task("why was this one refused yesterday", |chrome, _| {
        find(chrome, &key);
        chrome.until_text("Device not activated");
        chrome.until_text("their only laptop");
    });
}

#[test]
fn fifty_keys_are_issued_to_a_reseller_and_copied() {
    let Some(mut office) = Office::open() else {
        return;
    };
    office.license();
    office.task("50 keys for a reseller", |chrome, server| {
        chrome.press("Issue license");
        chrome.until_at("/lizenzserver/licenses/new");
        chrome.fill("Customer", CUSTOMER);
        chrome.fill("Number of licenses", "50");
        chrome.press("Issue license");
        chrome.until_text("50 licenses issued");
        chrome.press("Copy all keys");
        chrome.until("document.getElementById('say').textContent === 'Copied'");
        let copied = chrome.eval("navigator.clipboard.readText()");
        let copied: Vec<&str> = copied.as_str().unwrap().lines().collect();
        let all = server.json(&["license", "list"])["licenses"].clone();
        let known = all.as_array().unwrap().iter();
        let known: Vec<&str> = known.filter_map(|it| it["license_key"].as_str()).collect();
        assert_eq!(copied.len(), 50);
        assert!(copied.iter().all(|key| known.contains(key)), "{copied:?}");
    });
}

#[test]
fn five_licenses_of_a_customer_are_suspended_at_once() {
    let Some(mut office) = Office::open() else {
        return;
    };
    let keys: Vec<String> = (0..5).map(|_| office.license()).collect();
    office.server.json(&["customer", "add", "Ada"]);
    office
        .server
        .json(&["license", "issue", "--customer", "Ada"]);
    office.task("suspend five of one customer", |chrome, _| {
        find(chrome, CUSTOMER);
        chrome.until_at("/lizenzserver/customers/1");
        let all = chrome.find("input[data-all]");
        chrome.click(&all);
        chrome.press("Suspend");
        chrome.until_text("Suspend 5 licenses?");
        chrome.press("Suspend");
        chrome.until("location.pathname === '/lizenzserver/customers/1' && document.readyState === 'complete'");
    });
    for key in &keys {
        assert_eq!(office.shown(key)["state"], "suspended");
    }
    let all = office.server.json(&["license", "list"]);
    assert_eq!(all["licenses"][0]["state"], "active", "{all}");
}
