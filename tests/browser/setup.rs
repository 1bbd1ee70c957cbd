//! Set-up of browser tests: a server, a browser, a login, and the list of pages.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::browser::{HOME, PASSWORD};
use crate::driver::Chrome;
use crate::shop::{self, Shop};
use crate::support::Server;

/// The cookie of a login.
const SESSION: &str = "__Host-session";
/// Routes that are not pages: static files and downloads.
pub const NOT_PAGES: &[&str] = &[
    "/integrate/ca.pem",
    "/integrate/program/file",
    "/integrate/site.php",
    "/integrate/site.py",
    "/audit.csv",
    "/customers.csv",
    "/licenses.csv",
    "/licenses/selected.csv",
    "/mark.svg",
    "/panel.css",
    "/panel.js",
    "/refusals.csv",
    "/sessions/history.csv",
    "/setup",
    "/login/code",
];
/// Pages that redirect once the product is set up; `accounts` tests the set-up itself.
pub const SKIPPED_PAGES: &[&str] = &["/config/update", "/profile/totp/new", "/setup/license"];
/// Pages without a login.
pub const LOGIN_PAGES: &[&str] = &["/login"];

/// The paths of all pages behind the login, from the routes of the code; appends routes without a path to `problems`.
pub fn pages(shop: &Shop, problems: &mut String) -> Vec<String> {
    let routes = shop::routes().into_iter();
    let gets = routes
        .filter(|(method, _)| method == "GET")
        .map(|(_, route)| route);
    let inside = gets
        .filter(|route| {
            !NOT_PAGES.contains(&route.as_str()) && !LOGIN_PAGES.contains(&route.as_str())
        })
        .filter(|route| !SKIPPED_PAGES.contains(&route.as_str()));
    let mut paths = Vec::new();
    for route in inside {
        match shop.path(&route) {
            Some(path) => paths.push(path),
            None => writeln!(problems, "no sample data for {route}").unwrap(),
        }
    }
    // With results: a customer, its licenses, and a session.
    paths.push("/search?q=1".to_owned());
    paths
}

/// A running server and a browser; `None` if no browser is installed.
pub fn start() -> Option<(Server, Chrome)> {
    let server = Server::start();
    let chrome = Chrome::open(server.port())?;
    Some((server, chrome))
}

/// The same, with an owner logged in; see [`Server::logged_in_browser`].
pub fn start_with_owner() -> Option<(Server, Chrome)> {
    let (server, chrome) = start()?;
    let login = server.logged_in_browser_as("ada", "owner");
    chrome.cookie(SESSION, &login.cookie(SESSION).unwrap());
    extend_reauthentication(&server);
    Some((server, chrome))
}

/// Moves the re-authentication a day into the future, so that the panel does not ask for it again after five minutes:
/// a test of every page may take longer.
fn extend_reauthentication(server: &Server) {
    let file = rusqlite::Connection::open(server.database()).unwrap();
    file.busy_timeout(Duration::from_secs(30)).unwrap();
    let later = "update admin_sessions set proved_at_ms = proved_at_ms + 86400000";
    file.execute(later, ()).unwrap();
}

impl Chrome {
    /// Opens a page below the panel's home, and waits until it has loaded; re-authenticates if the panel asks for it.
    pub fn open_page(&self, path: &str) {
        self.go(&format!("{HOME}{path}"));
        if self.path().starts_with(&format!("{HOME}/prove?")) {
            let reauthenticate = "const old = document.getElementById('f-old'); old.value = arguments[0]; old.form.submit();";
            self.script(reauthenticate, &json!([PASSWORD]));
            self.until(
                "location.pathname !== '/lizenzserver/prove' && document.readyState === 'complete'",
            );
        }
    }
}

/// Logs in, in English.
pub fn log_in(chrome: &mut Chrome, name: &str) {
    chrome.open_page("/login");
    chrome.fill("Name", name);
    chrome.fill("Password", PASSWORD);
    chrome.press("Log in");
    chrome.until("location.pathname !== '/lizenzserver/login'");
}

/// Fails if the page violated its content security policy or a script failed.
pub fn expect_no_page_errors(chrome: &Chrome) {
    let complaints = chrome.page_errors();
    assert!(complaints.is_empty(), "{}: {complaints:#?}", chrome.path());
}
