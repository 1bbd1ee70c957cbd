//! What people do here, from beginning to end.

use serde_json::json;

use crate::browser::PASSWORD;
use crate::driver::{ENTER, ESCAPE};
use crate::scene::{self, expect_no_complaint};
use crate::support::{beat, claim};

#[test]
fn a_customer_is_added_in_both_languages() {
    let Some((_server, mut chrome)) = scene::owner() else {
        return;
    };
    for (language, add, name, deed) in [
        ("en", "Add customer", "Name", "Add customer"),
        ("de", "Kunden anlegen", "Name", "Kunden anlegen"),
    ] {
        chrome.cookie("lang", language);
        chrome.open_page("/customers");
        chrome.press(add);
        chrome.fill(name, &format!("K\u{e4}the {language}"));
        chrome.press(deed);
        chrome.until("location.pathname !== '/lizenzserver/customers/new'");
        chrome.open_page("/customers");
        chrome.until_said(&format!("K\u{e4}the {language}"));
        expect_no_complaint(&chrome);
    }
}

#[test]
fn without_script_one_logs_in_works_and_logs_out() {
    let Some((server, mut chrome)) = scene::stage() else {
        return;
    };
    server.admin("ada", "owner");
    chrome.without_script();
    scene::log_in(&mut chrome, "ada");
    chrome.open_page("/customers/new");
    chrome.fill("Name", "Grace");
    chrome.press("Add customer");
    chrome.open_page("/customers");
    chrome.until_said("Grace");
    chrome.press("Log out");
    chrome.until_at("/lizenzserver/login");
    chrome.fill("Password", PASSWORD);
}

#[test]
fn a_new_minimum_version_refuses_an_older_program() {
    let Some((server, mut chrome)) = scene::owner() else {
        return;
    };
    let key = server.license(2);
    let program = server.client();
    program.session(&key, "desk");
    for (language, current, minimum, save, version) in [
        ("en", "Current version", "Minimum version", "Save", "1.5.0"),
        (
            "de",
            "Aktuelle Version",
            "Mindestversion",
            "Speichern",
            "1.6.0",
        ),
    ] {
        chrome.cookie("lang", language);
        chrome.open_page("/config");
        chrome.fill(current, "2.0.0");
        chrome.fill(minimum, version);
        chrome.press(save);
        chrome.until_at("/lizenzserver/config?at=client");
        let refused = program.call("session/start", &claim(&key, "desk"));
        assert_eq!(refused.code(), "version_too_old");
        assert_eq!(refused.body["minimum_version"], version, "{refused:?}");
        expect_no_complaint(&chrome);
    }
}

#[test]
fn a_session_appears_in_the_monitor_without_reload() {
    let Some((server, chrome)) = scene::owner() else {
        return;
    };
    let key = server.license(1);
    chrome.open_page("/config");
    chrome.script("window.same = true;", &json!([]));
    server.client().session(&key, "desk in the corner");
    chrome.until_said("desk in the corner");
    assert_eq!(chrome.eval("window.same"), true);
    expect_no_complaint(&chrome);
}

#[test]
fn the_api_key_is_copied_and_the_question_about_it_can_be_left() {
    let Some((server, mut chrome)) = scene::owner() else {
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
    // With the keys: the question opens on what changes nothing, and Escape leads back.
    chrome.tab_to("Replace\u{2026}");
    chrome.keys(ENTER);
    chrome.until("document.activeElement.closest('dialog') && document.activeElement.textContent === 'Keep it'");
    chrome.keys(ESCAPE);
    chrome.until("!document.querySelector('dialog') && document.activeElement.textContent === 'Replace\u{2026}'");
    expect_no_complaint(&chrome);
}

#[test]
fn a_license_is_issued_in_both_languages() {
    let Some((server, mut chrome)) = scene::owner() else {
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
        chrome.until_said(issued);
        let key = server.json(&["license", "list"])["licenses"][0]["license_key"].clone();
        chrome.until_said(key.as_str().unwrap());
        expect_no_complaint(&chrome);
    }
}

#[test]
fn a_session_appears_is_ended_by_hand_and_its_program_hears_of_it() {
    let Some((server, mut chrome)) = scene::owner() else {
        return;
    };
    let key = server.license(1);
    let program = server.client();
    for (language, ask, end) in [
        ("en", "End session of Ada", "End session"),
        ("de", "Sitzung von Ada", "Sitzung beenden"),
    ] {
        chrome.cookie("lang", language);
        chrome.open_page("/sessions");
        chrome.script("window.same = true;", &json!([]));
        let token = program.session(&key, "desk in the corner");
        chrome.until_said("desk in the corner");
        assert_eq!(chrome.eval("window.same"), true);
        chrome.press(ask);
        chrome.until("document.querySelector('dialog[open]')");
        chrome.press(end);
        chrome.until_at("/lizenzserver/sessions?done=");
        let heard = program.call("session/heartbeat", &beat(&key, &token));
        assert_eq!(heard.told(), (410, "session_ended"));
        assert_eq!(heard.body["end_reason"], "forced", "{heard:?}");
        expect_no_complaint(&chrome);
    }
}

#[test]
fn without_script_a_session_is_ended_too() {
    let Some((server, mut chrome)) = scene::owner() else {
        return;
    };
    let key = server.license(1);
    let program = server.client();
    let token = program.session(&key, "desk");
    chrome.without_script();
    chrome.open_page("/sessions");
    chrome.press("End session of Ada");
    chrome.press("End session");
    chrome.until_at("/lizenzserver/sessions?done=");
    let heard = program.call("session/heartbeat", &beat(&key, &token));
    assert_eq!(heard.body["end_reason"], "forced", "{heard:?}");
}
