//! What the stage of a browser test is set with.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::browser::{HOME, PASSWORD};
use crate::driver::Chrome;
use crate::shop::{self, Shop};
use crate::support::Server;

/// The cookie of a login.
const SESSION: &str = "__Host-session";
/// What is no page: our own files, and files to keep.
pub const NO_PAGES: &[&str] = &[
    "/integrate/ca.pem",
    "/integrate/site.php",
    "/integrate/site.py",
    "/audit.csv",
    "/licenses.csv",
    "/mark.svg",
    "/panel.css",
    "/panel.js",
    "/sessions/history.csv",
    "/setup",
    "/login/code",
];
/// Pages that lead to others in a shop that is set up; the set-up itself is walked through in `accounts`.
pub const ELSEWHERE: &[&str] = &["/config/update", "/profile/totp/new", "/setup/license"];
/// Pages for somebody who is not logged in.
pub const OUTSIDE: &[&str] = &["/login"];

/// The addresses of all pages for somebody who is logged in, from the routes of the code.
pub fn pages(shop: &Shop, wrong: &mut String) -> Vec<String> {
    let routes = shop::routes().into_iter();
    let gets = routes
        .filter(|(method, _)| method == "GET")
        .map(|(_, route)| route);
    let inside = gets
        .filter(|route| !NO_PAGES.contains(&route.as_str()) && !OUTSIDE.contains(&route.as_str()))
        .filter(|route| !ELSEWHERE.contains(&route.as_str()));
    let mut paths = Vec::new();
    for route in inside {
        match shop.path(&route) {
            Some(path) => paths.push(path),
            None => writeln!(wrong, "nothing is known that opens {route}").unwrap(),
        }
    }
    paths
}

/// A running server and a browser that looks at it; nothing where there is no browser.
pub fn stage() -> Option<(Server, Chrome)> {
    let server = Server::start();
    let chrome = Chrome::open(server.port())?;
    Some((server, chrome))
}

/// The same, with an owner who is logged in; see [`Server::panel`].
pub fn owner() -> Option<(Server, Chrome)> {
    let (server, chrome) = stage()?;
    let login = server.panel_as("ada", "owner");
    chrome.cookie(SESSION, &login.cookie(SESSION).unwrap());
    stay_proved(&server);
    Some((server, chrome))
}

/// Keeps final deeds from asking who one is after five minutes: a walk over every page takes longer on a machine that
/// has other work too.
fn stay_proved(server: &Server) {
    let file = rusqlite::Connection::open(server.database()).unwrap();
    file.busy_timeout(Duration::from_secs(30)).unwrap();
    let later = "update admin_sessions set proved_at_ms = proved_at_ms + 86400000";
    file.execute(later, ()).unwrap();
}

impl Chrome {
    /// Opens a page below the panel's home, and waits until it is there; says once more who one is where the
    /// panel asks for that on the way.
    pub fn open_page(&self, path: &str) {
        self.go(&format!("{HOME}{path}"));
        if self.path().starts_with(&format!("{HOME}/prove?")) {
            let say = "const old = document.getElementById('f-old'); old.value = arguments[0]; old.form.submit();";
            self.script(say, &json!([PASSWORD]));
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

/// Fails when the page was refused something by its own policy, or a script of it failed.
pub fn expect_no_complaint(chrome: &Chrome) {
    let complaints = chrome.complaints();
    assert!(complaints.is_empty(), "{}: {complaints:#?}", chrome.path());
}
