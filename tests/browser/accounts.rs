//! The set-up from the printed link to a running session, and logging in with a second factor.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::axe::expect_accessible;
use crate::browser::PASSWORD;
use crate::driver::Chrome;
use crate::setup::{self, expect_no_page_errors};
use crate::support::{Server, identity};

/// A server at its first start, and the set-up link that it prints.
struct FirstStart {
    server: Server,
    child: Child,
    /// Path and query of the link.
    link: String,
}

impl FirstStart {
    fn start() -> Self {
        let server = Server::prepare(&[]);
        let mut child = server
            .command(&["serve"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let link = lines
            .find_map(|line| {
                Some(
                    line.unwrap()
                        .split_once("/lizenzserver/setup?token=")?
                        .1
                        .to_owned(),
                )
            })
            .unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let link = format!("/lizenzserver/setup?token={link}");
        Self {
            server,
            child,
            link,
        }
    }
}

impl Drop for FirstStart {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_set_up_leads_from_the_printed_link_to_a_running_session_in_three_steps() {
    let first_start = FirstStart::start();
    let Some(mut chrome) = Chrome::open(first_start.server.port()) else {
        return;
    };
    let begun = Instant::now();
    chrome.go(&first_start.link);
    chrome.fill("Name", "ada");
    chrome.fill("Password", PASSWORD);
    chrome.fill("Repeat password", PASSWORD);
    chrome.press("Create owner");
    chrome.until_at("/lizenzserver/config/client/new");
    chrome.fill("Product name", "Orrery");
    chrome.fill("Current version", "1.0.0");
    chrome.fill("Minimum version", "1.0.0");
    chrome.press("Save and continue");
    chrome.until_at("/lizenzserver/setup/license");
    chrome.fill("Customer", "Grace");
    chrome.press("Issue license");
    chrome.until_at("/lizenzserver/integrate");
    expect_no_page_errors(&chrome);
    // The page shows everything that a program needs.
    let key = first_start.server.json(&["license", "list"])["licenses"][0]["license_key"].clone();
    let key = key.as_str().unwrap();
    chrome.until_text(key);
    let config = first_start.server.json(&["config", "show"]);
    let api_key = config["api_key"].as_str().unwrap();
    chrome.until_text(api_key);
    let program = first_start.server.client().with_key(api_key);
    assert_eq!(program.call("activate", &identity(key, "desk")).status, 201);
    assert_eq!(
        program.call("session/start", &identity(key, "desk")).status,
        201
    );
    let summary = format!(
        "from the link to a session: {} clicks, {} fields, {:.1} s of run time\n",
        chrome.clicks,
        chrome.typed,
        begun.elapsed().as_secs_f32()
    );
    std::io::stderr().write_all(summary.as_bytes()).unwrap();
    // Estimate for a person: two seconds per click, six per field.
    assert!(chrome.clicks * 2 + chrome.typed * 6 < 120, "{summary}");
}

#[test]
fn the_steps_of_the_set_up_are_accessible() {
    let first_start = FirstStart::start();
    let Some(mut chrome) = Chrome::open(first_start.server.port()) else {
        return;
    };
    chrome.go(&first_start.link);
    expect_accessible(&chrome, "setup");
    chrome.reload();
    chrome.fill("Name", "ada");
    chrome.fill("Password", PASSWORD);
    chrome.fill("Repeat password", "another one");
    chrome.press("Create owner");
    // The first invalid field gets the focus.
    chrome.until("document.activeElement.matches('[data-focus]')");
    expect_accessible(&chrome, "setup, invalid");
    chrome.go(&first_start.link);
    chrome.fill("Name", "ada");
    chrome.fill("Password", PASSWORD);
    chrome.fill("Repeat password", PASSWORD);
    chrome.press("Create owner");
    chrome.until_at("/lizenzserver/config/client/new");
    expect_accessible(&chrome, "first configuration");
    chrome.open_page("/setup/license");
    expect_accessible(&chrome, "first license");
}

/// The TOTP code for this secret, `steps` periods from now.
fn totp_code(secret: &str, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = now.as_secs().checked_add_signed(steps * 30).unwrap();
    totp.generate(at).to_string()
}

#[test]
fn a_second_factor_is_set_up_and_used_to_log_in() {
    let Some((_server, mut chrome)) = setup::start_with_owner() else {
        return;
    };
    chrome.open_page("/profile/totp");
    chrome.press("Start");
    let shown = chrome.find("#totp-secret");
    let secret = chrome.eval_on(&shown, "e.textContent");
    let secret = secret.as_str().unwrap();
    chrome.fill("Then enter the six digits", &totp_code(secret, 0));
    chrome.press("Switch on");
    chrome.until_text("These codes will not be shown again.");
    expect_no_page_errors(&chrome);
    let recovery = chrome.find("#codes li code");
    let recovery = chrome.eval_on(&recovery, "e.textContent");
    let recovery = recovery.as_str().unwrap().to_owned();
    expect_accessible(&chrome, "recovery codes");
    chrome.open_page("/profile/totp/off");
    expect_accessible(&chrome, "second factor off");
    chrome.open_page("/profile/codes");
    expect_accessible(&chrome, "new recovery codes");
    // A code works once: the next code for the next login, a recovery code for the one after.
    for (what, typed) in [
        ("next code", totp_code(secret, 1)),
        ("recovery code", recovery),
    ] {
        chrome.open_page("/customers");
        chrome.press("Log out");
        chrome.until_at("/lizenzserver/login");
        chrome.open_page("/login?next=/lizenzserver/customers");
        chrome.fill("Name", "ada");
        chrome.fill("Password", PASSWORD);
        chrome.press("Log in");
        chrome.until_at("/lizenzserver/login/code");
        if what == "next code" {
            expect_accessible(&chrome, "second factor");
            chrome.reload();
        }
        chrome.fill("Code", &typed);
        chrome.press("Log in");
        chrome.until_at("/lizenzserver/customers");
        expect_no_page_errors(&chrome);
    }
}
