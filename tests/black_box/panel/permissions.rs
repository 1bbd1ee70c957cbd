//! The permissions of the panel: every route × (no login, support, admin, owner) × (with its own, without, with a
//! foreign CSRF token). A test fails for a route without a row, and for a row without a route.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::browser::{Browser, HOME, PASSWORD};
use crate::database;
use crate::shop::{self, Shop};
use crate::support::{Response, Server};
use crate::trials;

/// The least role that a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Public,
    Support,
    Admin,
    Owner,
    /// A login that awaits its second factor; `accounts` tests what it may do.
    AwaitingSecondFactor,
    /// Not served to anyone once there is an administrator.
    NotServed,
}
use Access::{Admin, AwaitingSecondFactor, NotServed, Owner, Public, Support};

/// A login is used this long at most: after five minutes the panel asks again for proof of identity.
const LOGIN_AGE_MAX: Duration = Duration::from_mins(2);
const ROLES: &[(&str, Access)] = &[("support", Support), ("admin", Admin), ("owner", Owner)];

/// A route, the least role that it requires, and for a `POST` the fields with which it changes something. The rows run
/// in this order, so those that end or remove something come last.
type Row = (
    &'static str,
    Access,
    &'static [(&'static str, &'static str)],
);
pub const ROWS: &[Row] = &[
    ("GET /panel.css", Public, &[]),
    ("GET /panel.js", Public, &[]),
    ("GET /mark.svg", Public, &[]),
    ("GET /login", Public, &[]),
    (
        "POST /login",
        Public,
        &[("name", "owner"), ("password", "seven green bicycles")],
    ),
    ("POST /appearance", Public, &[("theme", "dark")]),
    ("GET /login/code", AwaitingSecondFactor, &[]),
    ("POST /login/code", AwaitingSecondFactor, &[]),
    ("GET /setup", NotServed, &[]),
    ("POST /setup", NotServed, &[("name", "eve")]),
    ("GET /setup/license", Admin, &[]),
    (
        "POST /setup/license",
        Admin,
        &[("name", "Karl"), ("devices", "1")],
    ),
    ("GET /prove", Support, &[]),
    ("POST /prove", Support, &[("old", PASSWORD)]),
    ("GET /profile", Support, &[]),
    ("POST /profile/taste", Support, &[("language", "en")]),
    ("GET /profile/password", Support, &[]),
    (
        "POST /profile/password",
        Support,
        &[
            ("old", PASSWORD),
            ("password", PASSWORD),
            ("again", PASSWORD),
        ],
    ),
    ("GET /profile/totp", Support, &[]),
    ("GET /profile/totp/new", Support, &[]),
    ("POST /profile/totp/new", Support, &[]),
    ("POST /profile/totp", Support, &[]),
    ("GET /profile/totp/off", Support, &[]),
    ("POST /profile/totp/off", Support, &[("old", PASSWORD)]),
    ("GET /profile/codes", Support, &[]),
    ("POST /profile/codes", Support, &[]),
    ("POST /profile/logins/<id>/end", Support, &[]),
    ("POST /profile/logins/end-others", Support, &[]),
    ("GET /admins", Owner, &[]),
    ("GET /admins/new", Owner, &[]),
    (
        "POST /admins/new",
        Owner,
        &[
            ("name", "karl"),
            ("role", "support"),
            ("password", PASSWORD),
            ("again", PASSWORD),
        ],
    ),
    ("GET /admins/<id>", Owner, &[]),
    ("GET /admins/<id>/role", Owner, &[]),
    ("POST /admins/<id>/role", Owner, &[("role", "admin")]),
    ("GET /admins/<id>/password", Owner, &[]),
    (
        "POST /admins/<id>/password",
        Owner,
        &[("password", PASSWORD), ("again", PASSWORD)],
    ),
    ("GET /admins/<id>/reset-totp", Owner, &[]),
    (
        "POST /admins/<id>/reset-totp",
        Owner,
        &[("confirm", shop::ADMIN)],
    ),
    ("GET /admins/<id>/remove", Owner, &[]),
    (
        "POST /admins/<id>/remove",
        Owner,
        &[("confirm", shop::ADMIN)],
    ),
    ("GET /audit", Support, &[]),
    ("GET /audit.csv", Support, &[]),
    ("GET /", Support, &[]),
    ("GET /sessions", Support, &[]),
    ("GET /sessions/history", Support, &[]),
    ("GET /sessions/history.csv", Support, &[]),
    ("GET /sessions/<id>/terminate", Admin, &[]),
    ("GET /config", Support, &[]),
    ("GET /config/client/new", Admin, &[]),
    (
        "POST /config/update",
        Admin,
        &[("part", "new_flag"), ("name", "importer"), ("share", "50")],
    ),
    ("GET /config/flags/<name>/remove", Admin, &[]),
    ("POST /config/flags/<name>/remove", Admin, &[]),
    ("GET /config/key", Admin, &[]),
    (
        "POST /config/key",
        Admin,
        &[("confirm", "My program"), ("overlap_days", "7")],
    ),
    ("GET /customers", Support, &[]),
    ("GET /customers/new", Admin, &[]),
    ("POST /customers/new", Admin, &[("name", "Karl")]),
    ("POST /customers/<id>/export", Admin, &[]),
    ("GET /customers/<id>/edit", Admin, &[]),
    ("POST /customers/<id>/edit", Admin, &[("name", "Karla")]),
    ("GET /customers/<id>", Support, &[]),
    ("GET /customers/<id>/remove", Admin, &[]),
    ("POST /customers/<id>/remove", Admin, &[]),
    ("GET /licenses", Support, &[]),
    ("GET /licenses.csv", Support, &[]),
    ("GET /licenses/issued/<first>/<last>", Support, &[]),
    ("GET /licenses/<id>", Support, &[]),
    ("GET /licenses/new", Admin, &[]),
    (
        "POST /licenses/new",
        Admin,
        &[
            ("customer", "1"),
            ("kind", "full"),
            ("devices", "1"),
            ("count", "1"),
        ],
    ),
    ("GET /licenses/<id>/edit", Admin, &[]),
    (
        "POST /licenses/<id>/edit",
        Admin,
        &[
            ("kind", "full"),
            ("devices", "5"),
            ("valid_from", "2026-01-01"),
            ("note", "other"),
        ],
    ),
    ("GET /licenses/<id>/extend", Admin, &[]),
    (
        "POST /licenses/<id>/extend",
        Admin,
        &[("until", "2099-12-31")],
    ),
    ("GET /licenses/<id>/sell", Admin, &[]),
    ("POST /licenses/<id>/sell", Admin, &[("customer", "1")]),
    ("GET /licenses/<id>/devices/<device>/release", Support, &[]),
    ("POST /licenses/<id>/devices/<device>/release", Support, &[]),
    ("GET /sites", Support, &[]),
    ("GET /sites/handshakes", Support, &[]),
    ("GET /licenses/<id>/transfer", Admin, &[]),
    (
        "POST /licenses/<id>/transfer",
        Admin,
        &[("domain", "new.example.org")],
    ),
    ("POST /licenses/<id>/cancel-transfer", Admin, &[]),
    ("GET /licenses/<id>/free", Admin, &[]),
    ("POST /licenses/<id>/free", Admin, &[]),
    ("GET /licenses/<id>/bind", Admin, &[]),
    (
        "POST /licenses/<id>/bind",
        Admin,
        &[("domain", "www.example.org")],
    ),
    ("POST /sessions/<id>/terminate", Admin, &[]),
    ("GET /licenses/<id>/suspend", Admin, &[]),
    ("POST /licenses/<id>/suspend", Admin, &[]),
    ("POST /licenses/<id>/reinstate", Admin, &[]),
    ("GET /licenses/<id>/revoke", Admin, &[]),
    ("POST /licenses/<id>/revoke", Admin, &[("typed", "{group}")]),
    ("GET /plans", Support, &[]),
    ("GET /plans/new", Admin, &[]),
    (
        "POST /plans/new",
        Admin,
        &[
            ("code", "team"),
            ("name", "Team"),
            ("kind", "full"),
            ("device_limit", "10"),
            ("term_starts", "issue"),
        ],
    ),
    ("GET /plans/<code>/edit", Admin, &[]),
    (
        "POST /plans/<code>/edit",
        Admin,
        &[
            ("name", "Professional"),
            ("kind", "full"),
            ("device_limit", "5"),
            ("term_starts", "issue"),
        ],
    ),
    ("GET /plans/<code>/apply", Admin, &[]),
    ("POST /plans/<code>/apply", Admin, &[]),
    ("GET /plans/<code>/archive", Admin, &[]),
    ("POST /plans/<code>/archive", Admin, &[]),
    ("GET /releases", Support, &[]),
    ("GET /releases/new", Admin, &[]),
    (
        "POST /releases/new",
        Admin,
        &[
            ("version", "1.2.0"),
            ("channel", "stable"),
            ("notes", "New."),
        ],
    ),
    ("GET /releases/<version>", Support, &[]),
    ("GET /releases/<version>/edit", Admin, &[]),
    (
        "POST /releases/<version>/edit",
        Admin,
        &[("channel", "stable"), ("notes", "Newer.")],
    ),
    ("POST /releases/<version>/current", Admin, &[]),
    ("GET /releases/<version>/minimum", Admin, &[]),
    ("POST /releases/<version>/minimum", Admin, &[]),
    ("GET /releases/<version>/withdraw", Admin, &[]),
    ("POST /releases/<version>/withdraw", Admin, &[]),
    ("GET /backups", Owner, &[]),
    ("POST /backups", Owner, &[]),
    ("GET /backups/<name>", Owner, &[]),
    ("POST /backups/<name>", Owner, &[]),
    ("GET /config/update", Admin, &[]),
    ("GET /integrate", Support, &[]),
    ("GET /integrate/ca.pem", Support, &[]),
    ("GET /integrate/site", Support, &[]),
    ("GET /integrate/site.php", Support, &[]),
    ("GET /integrate/site.py", Support, &[]),
    ("POST /integrate", Admin, &[("license", "3")]),
    ("GET /products", Admin, &[]),
    ("GET /products/new", Admin, &[]),
    ("POST /products/new", Admin, &[("name", "Second")]),
    ("GET /products/<slug>/rename", Admin, &[]),
    ("POST /products/<slug>/rename", Admin, &[("name", "New")]),
    ("GET /products/<slug>/archive", Admin, &[]),
    (
        "POST /products/<slug>/archive",
        Admin,
        &[("typed", "second")],
    ),
    ("GET /customers/<id>/erase", Owner, &[]),
    (
        "POST /customers/<id>/erase",
        Owner,
        &[("typed", "Zuse Apparatebau")],
    ),
    ("POST /logout", Support, &[]),
];
/// Routes that need a value that a row cannot know, such as a one-time code; `accounts` tests them.
const TESTED_IN_ACCOUNTS: &[&str] = &[
    "POST /profile/totp",
    "POST /profile/codes",
    "POST /profile/logins/<id>/end",
];
/// Public routes that set a cookie only and change nothing in the database.
const COOKIE_ONLY: &[&str] = &["POST /appearance"];
/// Tables and columns that change without a request.
const VOLATILE: &[&str] = &["server_state", "daily_refusals", "seen_at_ms"];

/// The whole contents of the database, as text.
fn dump(server: &Server) -> String {
    let is_stable = |name: &&String| !VOLATILE.contains(&name.as_str());
    let mut all = String::new();
    for (table, rows) in database::rows(&server.database()) {
        for row in rows.iter().filter(|_| is_stable(&&table)) {
            write!(all, "\n{table}").unwrap();
            for (name, value) in row.iter().filter(|(name, _)| is_stable(name)) {
                write!(all, " {name}={value:?}").unwrap();
            }
        }
    }
    all
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A redirect to the login.
    LogIn,
    /// Forbidden, or the CSRF token is wrong.
    Refused,
    /// Not found, or an error.
    Failed,
    /// A page, a file, a redirect, or a form with errors.
    Served,
}

fn outcome_of(answer: &Response) -> Outcome {
    let to_login = answer
        .header("location")
        .is_some_and(|to| to.starts_with("/lizenzserver/login") && !to.contains("/login/"));
    match answer.status {
        303 if to_login => Outcome::LogIn,
        403 => Outcome::Refused,
        200 | 303 | 409 | 422 => Outcome::Served,
        _ => Outcome::Failed,
    }
}

/// The hidden fields of the form on `page` that is sent to `path`, without its CSRF token.
fn hidden_fields(page: &str, path: &str) -> Vec<(String, String)> {
    let form = page.split("<form").find(|form| {
        let tag = form.split('>').next().unwrap();
        tag.contains(&format!("action=\"{HOME}{path}\""))
    });
    let form = form.unwrap_or_default().split("</form>").next().unwrap();
    let value = |tag: &str, name: &str| {
        let rest = tag.split(&format!("{name}=\"")).nth(1);
        rest.and_then(|rest| rest.split('"').next())
            .unwrap_or_default()
            .to_owned()
    };
    let inputs = form
        .split("<input")
        .filter(|tag| tag.contains("type=\"hidden\""));
    inputs
        .map(|tag| (value(tag, "name"), value(tag, "value")))
        .filter(|(name, _)| name != "csrf_token")
        .collect()
}

/// The server that every row is tested on, and the failures so far.
struct Matrix {
    server: Server,
    shop: Shop,
    /// The last login of each administrator, and since when it is.
    logins: BTreeMap<&'static str, (Instant, Browser)>,
    failures: String,
}

impl Matrix {
    fn path(&self, route: &str) -> String {
        let path = route.split(' ').nth(1).unwrap();
        self.shop
            .path(path)
            .unwrap_or_else(|| panic!("no values for the path of {route}"))
    }

    /// Sends the request of a row; returns its outcome, and whether the database has changed.
    fn send(
        &self,
        browser: &mut Browser,
        (route, _, fields): Row,
        csrf_token: Option<&str>,
        hidden: &[(String, String)],
    ) -> (Outcome, bool, Response) {
        let path = self.path(route);
        let before = dump(&self.server);
        let answer = if route.starts_with("GET") {
            browser.get(&path)
        } else {
            let fields = fields.iter().map(|(name, text)| (*name, self.filled(text)));
            let mut fields: Vec<(&str, String)> = fields.collect();
            for (name, value) in hidden {
                if !fields.iter().any(|(field, _)| field == name) {
                    fields.push((name, value.clone()));
                }
            }
            fields.extend(csrf_token.map(|token| ("csrf_token", token.to_owned())));
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            browser.post_bare(&path, &fields)
        };
        (outcome_of(&answer), dump(&self.server) != before, answer)
    }

    /// `text` with its placeholders replaced by values of the shop.
    fn filled(&self, text: &str) -> String {
        let group = self.shop.key.rsplit('-').next().unwrap();
        text.replace("{key}", &self.shop.key)
            .replace("{group}", group)
    }

    fn expect_unchanged(
        &mut self,
        description: &str,
        actual: (Outcome, bool, Response),
        expected: Outcome,
    ) {
        let (outcome, changed, answer) = actual;
        if outcome != expected || changed {
            let status = answer.status;
            writeln!(
                self.failures,
                "{description}: {outcome:?} ({status}), changed: {changed}"
            )
            .unwrap();
        }
    }

    /// Without a login, a sufficient role, or the right CSRF token, and from another site, a request is refused and
    /// changes nothing.
    fn check_refusals(
        &mut self,
        row: Row,
        admins: &mut [(Access, Browser, String)],
        foreign: &str,
    ) {
        let (route, required, _) = row;
        let is_change = !route.starts_with("GET");
        let mut logged_out = self.server.browser();
        for csrf_token in [None, Some(foreign)] {
            let answer = self.send(&mut logged_out, row, csrf_token, &[]);
            self.expect_unchanged(&format!("{route}, no login"), answer, Outcome::LogIn);
        }
        for (role, browser, own) in admins {
            for (kind, csrf_token) in [
                ("no", None),
                ("foreign", Some(foreign)),
                ("own", Some(&**own)),
            ] {
                if *role < required || (is_change && kind != "own") {
                    let answer = self.send(browser, row, csrf_token, &[]);
                    let description = format!("{route}, {role:?}, {kind} CSRF token");
                    self.expect_unchanged(&description, answer, Outcome::Refused);
                }
            }
            if is_change {
                let mut other_site = browser.clone();
                other_site.headers = vec![("Sec-Fetch-Site".to_owned(), "cross-site".to_owned())];
                let answer = self.send(&mut other_site, row, Some(own), &[]);
                self.expect_unchanged(
                    &format!("{route}, {role:?}, from another site"),
                    answer,
                    Outcome::Refused,
                );
            }
        }
    }

    /// A login of the administrator: the last one, unless a row has ended it or its proof of identity grows old.
    fn logged_in(&mut self, name: &'static str) -> Browser {
        if let Some((since, browser)) = self.logins.get_mut(name)
            && since.elapsed() < LOGIN_AGE_MAX
            && outcome_of(&browser.get("/profile")) == Outcome::Served
        {
            return browser.clone();
        }
        let browser = self.server.logged_in_browser(name);
        self.logins.insert(name, (Instant::now(), browser.clone()));
        browser
    }

    /// Every sufficient role is served, and the first of them really changes something.
    fn check_grants(&mut self, row: Row) {
        let (route, required, _) = row;
        let mut first = true;
        for (name, role) in ROLES.iter().filter(|(_, role)| *role >= required) {
            let mut browser = self.logged_in(name);
            let csrf_token = browser.csrf_token();
            let path = self.path(route);
            let is_change = !route.starts_with("GET");
            let page = if is_change {
                browser.get(&path).text
            } else {
                String::new()
            };
            let hidden = hidden_fields(&page, &path);
            let (outcome, changed, answer) =
                self.send(&mut browser, row, Some(&csrf_token), &hidden);
            let is_logout = route == "POST /logout" && outcome == Outcome::LogIn;
            // What the first role has removed is missing for the others.
            if outcome != Outcome::Served && !is_logout && (first || outcome != Outcome::Failed) {
                writeln!(self.failures, "{route}, {role:?}: {outcome:?} {answer:?}").unwrap();
            }
            if is_change && first && !changed && !TESTED_IN_ACCOUNTS.contains(&route) {
                writeln!(
                    self.failures,
                    "{route}, {role:?}: nothing changed: {answer:?}"
                )
                .unwrap();
            }
            first = false;
        }
    }

    /// A route that is not served is answered like an unknown one.
    fn check_not_served(&mut self, row: Row, admins: &mut [(Access, Browser, String)]) {
        let (route, _, _) = row;
        let mut logged_out = self.server.browser();
        let unknown = logged_out.get("/nothing-here").status;
        let mut all = vec![(logged_out, None)];
        for (_, browser, own) in admins {
            all.push((browser.clone(), Some(&**own)));
        }
        for (browser, csrf_token) in &mut all {
            let (outcome, changed, answer) = self.send(browser, row, *csrf_token, &[]);
            if answer.status != unknown || changed || !answer.text.is_empty() {
                writeln!(self.failures, "{route}: {outcome:?}, {changed}, {answer:?}").unwrap();
            }
        }
    }

    /// A public route is served without a login, but not from another site.
    fn check_public(&mut self, row: Row) {
        let (route, _, _) = row;
        let mut logged_out = self.server.browser();
        if route.starts_with("POST") {
            let mut other_site = logged_out.clone();
            other_site.headers.clear();
            let answer = self.send(&mut other_site, row, None, &[]);
            self.expect_unchanged(
                &format!("{route}, from another site"),
                answer,
                Outcome::Refused,
            );
        }
        let (outcome, changed, answer) = self.send(&mut logged_out, row, None, &[]);
        let must_change = route.starts_with("POST") && !COOKIE_ONLY.contains(&route);
        if outcome != Outcome::Served || changed != must_change {
            writeln!(
                self.failures,
                "{route}, no login: {outcome:?}, {changed}, {answer:?}"
            )
            .unwrap();
        }
    }
}

#[test]
fn every_route_has_a_row_and_every_row_a_route() {
    let routes = shop::routes().into_iter();
    let routes: BTreeSet<String> = routes
        .map(|(method, path)| format!("{method} {path}"))
        .collect();
    let rows: BTreeSet<String> = ROWS
        .iter()
        .map(|(route, _, _)| (*route).to_owned())
        .collect();
    let without_row: Vec<_> = routes.difference(&rows).collect();
    let without_route: Vec<_> = rows.difference(&routes).collect();
    assert!(
        without_row.is_empty() && without_route.is_empty(),
        "routes without a row: {without_row:#?}, rows without a route: {without_route:#?}"
    );
}

#[test]
fn every_route_serves_sufficient_roles_only() {
    let server = Server::start();
    for group in ["login", "client"] {
        server.json(&["limit", "set", group, "--per-minute", "0"]);
    }
    // No session may time out meanwhile, because that would change the database.
    server.json(&["config", "set", "session_timeout=86400"]);
    let mut shop = shop::add_sample_data(&server, "");
    shop.trial = trials::start(&server);
    // The one that a row adds; of the first one, programs are running.
    shop.product = "second".to_owned();
    let mut admins = Vec::new();
    for (name, role) in ROLES {
        let mut browser = server.logged_in_browser(name);
        let csrf_token = browser.csrf_token();
        admins.push((*role, browser, csrf_token));
    }
    // The token of another login of the owner.
    let foreign = server.logged_in_browser("owner").csrf_token();
    let mut matrix = Matrix {
        server,
        shop,
        logins: BTreeMap::new(),
        failures: String::new(),
    };
    for row in ROWS {
        match row.1 {
            Public => {}
            AwaitingSecondFactor => matrix.check_refusals(*row, &mut [], &foreign),
            NotServed => matrix.check_not_served(*row, &mut admins),
            _ => matrix.check_refusals(*row, &mut admins, &foreign),
        }
    }
    for row in ROWS {
        match row.1 {
            Public => matrix.check_public(*row),
            AwaitingSecondFactor | NotServed => {}
            _ => matrix.check_grants(*row),
        }
    }
    assert!(matrix.failures.is_empty(), "{}", matrix.failures);
}
