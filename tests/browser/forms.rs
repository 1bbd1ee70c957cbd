//! Forms that are sent by script: the page stays, with everything that is typed elsewhere on it.

use serde_json::json;

use crate::setup::{self, expect_no_page_errors};

/// The text beside the button of the first form of the settings.
const REPORT: &str = "document.querySelector('#client .told')?.textContent ?? ''";

#[test]
fn settings_are_saved_in_place_and_touch_nothing_else() {
    let Some((server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    server.json(&["flag", "set", "beta", "--on"]);
    chrome.open_page("/config");
    chrome.script("window.same = history.length;", &json!([]));
    chrome.script("document.getElementById('flags').open = true;", &json!([]));
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
    chrome.fill("Heartbeat interval (seconds)", "30");
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
    let log_out = "const csrf_token = document.querySelector('[name=csrf_token]').value; \
        return fetch('/lizenzserver/logout', { method: 'POST', body: new URLSearchParams({ csrf_token }) }).then(() => 1);";
    chrome.script(log_out, &json!([]));
    chrome.press("Save");
    chrome.until(&format!("{REPORT}.includes('your login has ended')"));
    let link = chrome.eval("document.querySelector('#client .told').getAttribute('href')");
    assert!(
        link.as_str().unwrap().contains("/lizenzserver/login"),
        "{link}"
    );
    let typed = "document.getElementById('f-heartbeat_interval').value";
    assert_eq!(chrome.eval(typed), "17");
    // Logged in again in another tab, the same form is saved.
    let log_in = "return fetch('/lizenzserver/login', { method: 'POST', body: new URLSearchParams(arguments[0]) }).then(() => 1);";
    let credentials = json!([{ "name": "ada", "password": crate::browser::PASSWORD }]);
    chrome.script(log_in, &credentials);
    chrome.press("Save");
    chrome.until(&format!("{REPORT} === 'Saved.'"));
    assert_eq!(server.json(&["config", "show"])["heartbeat_interval"], 17);
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
    chrome.open_page("/sessions");
    server.kill();
    chrome.until_text("Not updating since");
    server.run();
    chrome.until("!document.body.innerText.includes('Not updating since')");
}
