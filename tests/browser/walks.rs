//! What people do here, from beginning to end.

use crate::browser::PASSWORD;
use crate::scene::{self, expect_no_complaint};

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
