//! Common tasks of administrators, from beginning to end.

use serde_json::json;

use crate::browser::PASSWORD;
use crate::driver::{ENTER, ESCAPE};
use crate::setup::{self, expect_no_page_errors};
use crate::support::{heartbeat_body, identity};

#[test]
fn a_customer_is_added_in_both_languages() {
    let Some((_server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    for (language, add, name, submit) in [
        ("en", "Add customer", "Name", "Add customer"),
        ("de", "Kunden anlegen", "Name", "Kunden anlegen"),
    ] {
        chrome.cookie("lang", language);
        chrome.open_page("/customers");
        chrome.press(add);
        chrome.fill(name, &format!("K\u{e4}the {language}"));
        chrome.press(submit);
        chrome.until("location.pathname !== '/lizenzserver/customers/new'");
        chrome.open_page("/customers");
        chrome.until_text(&format!("K\u{e4}the {language}"));
        expect_no_page_errors(&chrome);
    }
}

#[test]
fn login_a_form_and_logout_work_without_script() {
    let Some((server, mut chrome)) = setup::start() else {
        return;
    };
    server.add_admin("ada", "owner");
    chrome.without_script();
    setup::log_in(&mut chrome, "ada");
    chrome.open_page("/customers/new");
    chrome.fill("Name", "Grace");
    chrome.press("Add customer");
    chrome.open_page("/customers");
    chrome.until_text("Grace");
    chrome.press("Log out");
    chrome.until_at("/lizenzserver/login");
    chrome.fill("Password", PASSWORD);
}

#[test]
fn a_new_minimum_version_refuses_an_older_program() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    let key = server.issue_license(2);
    let program = server.client();
    program.session(&key, "desk");
    for (language, current, minimum, [save, refuse, saved], version) in [
        (
            "en",
            "Current version",
            "Minimum version",
            ["Save", "Save and refuse older programs", "Saved."],
            "1.5.0",
        ),
        (
            "de",
            "Aktuelle Version",
            "Mindestversion",
            [
                "Speichern",
                "Speichern und ältere Programme abweisen",
                "Gespeichert.",
            ],
            "1.6.0",
        ),
    ] {
        chrome.cookie("lang", language);
        chrome.open_page("/config");
        chrome.fill(current, "2.0.0");
        chrome.fill(minimum, version);
        chrome.press(save);
        chrome.until_text(refuse);
        chrome.press(refuse);
        chrome.until_text(saved);
        let refused = program.call("session/start", &identity(&key, "desk"));
        assert_eq!(refused.code(), "version_too_old");
        assert_eq!(refused.body["minimum_version"], version, "{refused:?}");
        expect_no_page_errors(&chrome);
    }
}

#[test]
fn a_session_appears_in_the_monitor_without_reload() {
    let Some((server, chrome)) = setup::start_with_owner() else {
        return;
    };
    let key = server.issue_license(1);
    chrome.open_page("/config");
    chrome.script("window.same = true;", &json!([]));
    server.client().session(&key, "desk in the corner");
    chrome.until_text("desk in the corner");
    assert_eq!(chrome.eval("window.same"), true);
    expect_no_page_errors(&chrome);
}

#[test]
fn the_api_key_is_copied_and_the_dialog_to_replace_it_can_be_closed() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/config");
    chrome.allow_clipboard();
    let copy = chrome.find("[data-copy]");
    chrome.click(&copy);
    chrome.until("document.getElementById('say').textContent === 'Copied'");
    assert_eq!(
        chrome.eval("navigator.clipboard.readText()"),
        server.api_key()
    );
    // By keyboard: the dialog opens with the focus on the button that cancels, and Escape closes it.
    chrome.tab_to("Replace\u{2026}");
    chrome.keys(ENTER);
    chrome.until("document.activeElement.closest('dialog') && document.activeElement.textContent === 'Cancel'");
    chrome.keys(ESCAPE);
    chrome.until("!document.querySelector('dialog') && document.activeElement.textContent === 'Replace\u{2026}'");
    expect_no_page_errors(&chrome);
}

#[test]
fn a_license_is_issued_in_both_languages() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    for (language, name, issue, customer, new, devices, issued) in [
        (
            "en",
            "Grace",
            "Issue license",
            "Customer",
            "Add this customer",
            "Devices",
            "License issued",
        ),
        (
            "de",
            "K\u{e4}the",
            "Lizenz ausstellen",
            "Kunde",
            "Diesen Kunden anlegen",
            "Ger\u{e4}te",
            "Lizenz ausgestellt",
        ),
    ] {
        chrome.cookie("lang", language);
        chrome.open_page("/licenses");
        chrome.press(issue);
        chrome.until_at("/lizenzserver/licenses/new");
        chrome.fill(customer, name);
        let new = chrome.field(new);
        chrome.click(&new);
        chrome.fill(devices, "2");
        chrome.press(issue);
        chrome.until_text(issued);
        let key = server.json(&["license", "list"])["licenses"][0]["license_key"].clone();
        chrome.until_text(key.as_str().unwrap());
        expect_no_page_errors(&chrome);
    }
}

#[test]
fn a_session_appears_and_is_ended_in_the_panel_and_its_next_heartbeat_is_refused() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    let key = server.issue_license(1);
    let program = server.client();
    for (language, ask, end, done) in [
        ("en", "End session of Ada", "End session", "Session ended."),
        (
            "de",
            "Sitzung von Ada",
            "Sitzung beenden",
            "Die Sitzung ist beendet.",
        ),
    ] {
        chrome.cookie("lang", language);
        chrome.open_page("/sessions");
        chrome.script("window.same = true;", &json!([]));
        let token = program.session(&key, "desk in the corner");
        chrome.until_text("desk in the corner");
        assert_eq!(chrome.eval("window.same"), true);
        // Rows that come later have the button that copies the fingerprint, too.
        chrome.until("document.querySelector('[data-live] code.clip + [data-copy]')");
        chrome.press(ask);
        chrome.until("document.querySelector('dialog[open]')");
        chrome.press(end);
        chrome.until_text(done);
        let response = program.call("session/heartbeat", &heartbeat_body(&key, &token));
        assert_eq!(response.status_and_code(), (410, "session_ended"));
        assert_eq!(response.body["end_reason"], "forced", "{response:?}");
        expect_no_page_errors(&chrome);
    }
}

#[test]
fn a_session_is_ended_without_script_too() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    let key = server.issue_license(1);
    let program = server.client();
    let token = program.session(&key, "desk");
    chrome.without_script();
    chrome.open_page("/sessions");
    chrome.press("End session of Ada");
    chrome.press("End session");
    chrome.until_text("Session ended.");
    let response = program.call("session/heartbeat", &heartbeat_body(&key, &token));
    assert_eq!(response.body["end_reason"], "forced", "{response:?}");
}
