//! From the printed link to the lines for a program, and in with a second factor.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::axe::expect_no_barrier;
use crate::browser::PASSWORD;
use crate::driver::Chrome;
use crate::scene::{self, expect_no_complaint};
use crate::support::{Server, claim};

/// A server at its very first start, and the link that it prints.
struct Fresh {
    server: Server,
    child: Child,
    /// What comes after the host.
    link: String,
}

impl Fresh {
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

impl Drop for Fresh {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn three_steps_lead_from_the_printed_link_to_a_running_session() {
    let fresh = Fresh::start();
    let Some(mut chrome) = Chrome::open(fresh.server.port()) else {
        return;
    };
    let begun = Instant::now();
    chrome.go(&fresh.link);
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
    expect_no_complaint(&chrome);
    // What the page shows is all that a program needs.
    let key = fresh.server.json(&["license", "list"])["licenses"][0]["license_key"].clone();
    let key = key.as_str().unwrap();
    chrome.until_said(key);
    let config = fresh.server.json(&["config", "show"]);
    let api_key = config["api_key"].as_str().unwrap();
    chrome.until_said(api_key);
    let program = fresh.server.client().with_key(api_key);
    assert_eq!(program.call("activate", &claim(key, "desk")).status, 201);
    assert_eq!(
        program.call("session/start", &claim(key, "desk")).status,
        201
    );
    let told = format!(
        "from the link to a session: {} clicks, {} fields, {:.1} s of the machine\n",
        chrome.clicks,
        chrome.typed,
        begun.elapsed().as_secs_f32()
    );
    std::io::stderr().write_all(told.as_bytes()).unwrap();
    // At the pace of people: two seconds a click, six a field.
    assert!(chrome.clicks * 2 + chrome.typed * 6 < 120, "{told}");
}

#[test]
fn the_steps_of_the_set_up_are_no_barrier() {
    let fresh = Fresh::start();
    let Some(mut chrome) = Chrome::open(fresh.server.port()) else {
        return;
    };
    chrome.go(&fresh.link);
    expect_no_barrier(&chrome, "setup");
    chrome.reload();
    chrome.fill("Name", "ada");
    chrome.fill("Password", PASSWORD);
    chrome.fill("Repeat password", "another one");
    chrome.press("Create owner");
    // The faulty form takes the focus, and keeps what is no secret.
    chrome.until("document.activeElement.matches('[data-focus]')");
    expect_no_barrier(&chrome, "setup, faulty");
    chrome.go(&fresh.link);
    chrome.fill("Name", "ada");
    chrome.fill("Password", PASSWORD);
    chrome.fill("Repeat password", PASSWORD);
    chrome.press("Create owner");
    chrome.until_at("/lizenzserver/config/client/new");
    expect_no_barrier(&chrome, "first configuration");
    chrome.open_page("/setup/license");
    expect_no_barrier(&chrome, "first license");
}

/// What the telephone shows for this secret, so many steps from now.
fn code(secret: &str, steps: i64) -> String {
    let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).build().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = now.as_secs().checked_add_signed(steps * 30).unwrap();
    totp.generate(at).to_string()
}

#[test]
fn one_sets_up_a_second_factor_and_logs_in_with_it() {
    let Some((_server, mut chrome)) = scene::owner() else {
        return;
    };
    chrome.open_page("/profile/totp");
    chrome.press("Start");
    let shown = chrome.find("#totp-secret");
    let secret = chrome.of(&shown, "e.textContent");
    let secret = secret.as_str().unwrap();
    chrome.fill("Then enter the six digits", &code(secret, 0));
    chrome.press("Switch on");
    chrome.until_said("These codes will not be shown again.");
    expect_no_complaint(&chrome);
    let recovery = chrome.find("#codes li code");
    let recovery = chrome.of(&recovery, "e.textContent");
    let recovery = recovery.as_str().unwrap().to_owned();
    expect_no_barrier(&chrome, "recovery codes");
    chrome.open_page("/profile/totp/off");
    expect_no_barrier(&chrome, "second factor off");
    chrome.open_page("/profile/codes");
    expect_no_barrier(&chrome, "new recovery codes");
    // A code serves once: the next one for the next login, a recovery code for the one after it.
    for (what, typed) in [("next code", code(secret, 1)), ("recovery code", recovery)] {
        chrome.open_page("/customers");
        chrome.press("Log out");
        chrome.until_at("/lizenzserver/login");
        chrome.open_page("/login?next=/lizenzserver/customers");
        chrome.fill("Name", "ada");
        chrome.fill("Password", PASSWORD);
        chrome.press("Log in");
        chrome.until_at("/lizenzserver/login/code");
        if what == "next code" {
            expect_no_barrier(&chrome, "second factor");
            chrome.reload();
        }
        chrome.fill("Code", &typed);
        chrome.press("Log in");
        chrome.until_at("/lizenzserver/customers");
        expect_no_complaint(&chrome);
    }
}
