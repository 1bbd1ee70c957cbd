//! The second factor: set-up, login, codes that work once, recovery codes, and when the settings require it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::admins::accounts::{
    NO_LOGIN_LIMIT, SESSION, between, csrf_token_in, is_in, location, submit,
};
use crate::browser::{Browser, PASSWORD};
use crate::database;
use crate::setup::started;
use crate::support::{Response, Server};

/// An authenticator app with a secret.
pub struct AuthenticatorApp {
    totp: totp_rs::Totp,
    /// The code that confirmed the secret: on a slow machine its time step has passed before a test uses it again.
    confirming_code: String,
}

impl AuthenticatorApp {
    pub fn with(secret: &str) -> Self {
        let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
        let totp = totp_rs::Builder::new().with_secret(secret);
        let mut app = Self {
            totp: totp.build().unwrap(),
            confirming_code: String::new(),
        };
        app.confirming_code = app.code(0);
        app
    }

    /// The code `steps` time steps from now.
    pub fn code(&self, steps: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at = now.as_secs().checked_add_signed(steps * 30).unwrap();
        self.totp.generate(at).to_string()
    }
}

/// Sets up a second factor; returns the app, the recovery codes and the secret.
pub fn set_up_totp(browser: &mut Browser) -> (AuthenticatorApp, Vec<String>, String) {
    let offered = submit(browser, "/profile/totp", "/profile/totp/new", &[]);
    assert_eq!(location(&offered), "/lizenzserver/profile/totp");
    let page = browser.get("/profile/totp");
    assert!(page.text.contains("<svg class=\"qr\""), "{}", page.text);
    let secret = between(&page.text, "id=\"totp-secret\">");
    let app = AuthenticatorApp::with(&secret);
    let done = submit(
        browser,
        "/profile/totp",
        "/profile/totp",
        &[("code", &app.confirming_code)],
    );
    assert_eq!(done.status, 200, "{}", done.text);
    (app, codes_in(&done), secret)
}

/// The recovery codes on a page.
pub fn codes_in(page: &Response) -> Vec<String> {
    let items = page.text.split("<li><code>").skip(1);
    let codes = items.map(|rest| rest.split('<').next().unwrap().to_owned());
    codes.collect()
}

/// Logs in with the password and then with `code`.
pub fn log_in_with(browser: &mut Browser, name: &str, code: &str) -> Response {
    let first = browser.log_in(name, PASSWORD);
    assert!(
        location(&first).starts_with("/lizenzserver/login/code"),
        "{first:?}"
    );
    submit(browser, "/login/code", "/login/code", &[("code", code)])
}

#[test]
fn a_second_factor_is_required_its_codes_work_once_and_it_has_ten_recovery_codes() {
    let server = started(&[], &[NO_LOGIN_LIMIT]);
    let mut ada = server.browser_after_login("admin");
    let early = submit(&mut ada, "/profile", "/profile/totp", &[("code", "123456")]);
    assert!(
        early.text.contains("No secret is waiting"),
        "{}",
        early.text
    );
    submit(&mut ada, "/profile/totp", "/profile/totp/new", &[]);
    let wrong = submit(
        &mut ada,
        "/profile/totp",
        "/profile/totp",
        &[("code", "12345")],
    );
    assert_eq!(wrong.status, 422);
    assert_eq!(server.browser().log_in("admin", PASSWORD).status, 303);
    let mut before = server.browser();
    before.log_in("admin", PASSWORD);
    assert!(
        is_in(&mut before),
        "an unconfirmed second factor is not required"
    );
    let (app, codes, _) = set_up_totp(&mut ada);
    assert_eq!(codes.len(), 10, "{codes:?}");
    assert!(ada.get("/profile").text.contains("10 left"));

    // An incomplete login gives access to nothing.
    let mut browser = server.browser();
    browser.log_in("admin", PASSWORD);
    let incomplete = browser.clone();
    for path in ["/profile", "/profile/totp", "/customers", "/prove"] {
        let response = browser.get(path);
        assert!(
            location(&response).starts_with("/lizenzserver/login"),
            "{path}: {response:?}"
        );
    }
    // The code that confirmed the secret cannot be used again.
    let used = submit(
        &mut browser,
        "/login/code",
        "/login/code",
        &[("code", &app.confirming_code)],
    );
    assert!(
        used.status == 422 && used.text.contains("already been used"),
        "{}",
        used.text
    );
    let next = app.code(1);
    let response = submit(
        &mut browser,
        "/login/code",
        "/login/code",
        &[("code", &next)],
    );
    assert_eq!(location(&response), "/lizenzserver", "{}", response.text);
    assert!(is_in(&mut browser));
    assert_ne!(
        incomplete.cookie(SESSION),
        browser.cookie(SESSION),
        "new after the second factor"
    );
    let mut incomplete = incomplete;
    assert!(location(&incomplete.get("/login/code")).starts_with("/lizenzserver/login"));
    assert_eq!(location(&browser.get("/login/code")), "/lizenzserver");
    assert_eq!(
        log_in_with(&mut server.browser(), "admin", &next).status,
        422
    );

    // Recovery codes, once each, however they are typed.
    let typed = codes[0].to_uppercase().replace('-', " ");
    assert_eq!(
        log_in_with(&mut server.browser(), "admin", &typed).status,
        303
    );
    assert_eq!(
        log_in_with(&mut server.browser(), "admin", &codes[0]).status,
        422
    );
    assert!(ada.get("/profile").text.contains("9 left"));
    let renewed = codes_in(&ada.post("/profile/codes", &[]));
    assert_eq!(renewed.len(), 10);
    assert_eq!(
        log_in_with(&mut server.browser(), "admin", &codes[1]).status,
        422
    );
    assert_eq!(
        log_in_with(&mut server.browser(), "admin", &renewed[1]).status,
        303
    );
    let stored = database::recovery_codes(&server);
    assert!(
        stored.len() == 9 && stored.iter().all(|code| code.len() == 64),
        "digests"
    );

    // Switched off with the password, and only with it.
    assert_eq!(
        ada.post("/profile/totp/off", &[("old", "wrong")]).status,
        422
    );
    assert_eq!(
        ada.post("/profile/totp/off", &[("old", PASSWORD)]).status,
        303
    );
    let mut browser = server.browser();
    browser.log_in("admin", PASSWORD);
    assert!(is_in(&mut browser));
}

#[test]
fn guessing_codes_is_slowed_for_unknown_browsers_and_locks_no_administrator_out() {
    let server = started(&[], &[NO_LOGIN_LIMIT]);
    let mut ada = server.browser_after_login("admin");
    let (app, codes, _) = set_up_totp(&mut ada);
    database::forget_used_codes(&server);
    let mut known = ada.clone();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        // Another login does not give more attempts.
        let mut unknown_browser = server.browser();
        unknown_browser.log_in("admin", PASSWORD);
        for _ in 0..6 {
            let fields = [("code", "000000")];
            statuses
                .push(submit(&mut unknown_browser, "/login/code", "/login/code", &fields).status);
        }
    }
    assert_eq!(
        statuses.iter().filter(|status| **status == 429).count(),
        8,
        "{statuses:?}"
    );
    assert_eq!(statuses[..10], [422; 10]);
    let mut unknown_browser = server.browser();
    assert_eq!(
        log_in_with(&mut unknown_browser, "admin", &app.code(0)).status,
        429
    );
    assert_eq!(log_in_with(&mut known, "admin", &app.code(0)).status, 303);
    assert_eq!(
        log_in_with(&mut server.browser(), "admin", &codes[3]).status,
        303
    );
}

#[test]
fn a_required_second_factor_must_be_set_up_first() {
    let server = Server::start_with(&[("PANEL__REQUIRE_TOTP", "true")]);
    server.add_admin("ada", "owner");
    let mut ada = server.browser();
    ada.log_in("ada", PASSWORD);
    for path in ["/customers", "/profile", "/profile/password", "/admins"] {
        assert_eq!(
            location(&ada.get(path)),
            "/lizenzserver/profile/totp",
            "{path}"
        );
    }
    let csrf_token = csrf_token_in(&ada.get("/profile/totp"));
    let fields = [("name", "Eve"), ("csrf_token", &*csrf_token)];
    let response = ada.post_bare("/customers/new", &fields);
    assert_eq!(location(&response), "/lizenzserver/profile/totp");
    assert_eq!(database::count(&server, "customers"), 0);
    assert!(
        ada.get("/profile/totp")
            .text
            .contains("requires a second factor for everyone")
    );
    set_up_totp(&mut ada);
    assert_eq!(ada.get("/customers").status, 200);
}
