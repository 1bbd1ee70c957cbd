//! The permissions of the panel: every route × (no login, support, admin, owner) × (with its own, without, with a
//! foreign CSRF token). A test fails for a route without a row, and for a row without a route.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::audit::panel::expect_names_of_fields;
use crate::browser::{Browser, HOME};
use crate::database::{Rows, Watch};
use crate::panel::routes::Access::{
    self, Admin, AwaitingSecondFactor, NotServed, Owner, Public, Support,
};
use crate::panel::routes::{ROWS, Row};
use crate::shop::{self, Shop};
use crate::support::{Response, Server};
use crate::trials;

/// A login is used this long at most: after five minutes the panel asks again for proof of identity.
const LOGIN_AGE_MAX: Duration = Duration::from_mins(2);
const ROLES: &[(&str, Access)] = &[("support", Support), ("admin", Admin), ("owner", Owner)];

/// Routes that need a value that a row cannot know, such as a one-time code; `accounts` tests them.
const TESTED_IN_ACCOUNTS: &[&str] = &[
    "POST /profile/totp",
    "POST /profile/codes",
    "POST /profile/logins/<id>/end",
];
/// Public routes that set a cookie only and change nothing in the database.
const COOKIE_ONLY: &[&str] = &["POST /appearance"];
/// Tables and columns that change without a request.
const VOLATILE: &[&str] = &["server_state", "activity_counts", "refusals", "seen_at_ms"];

/// What a request may not change in the contents of the database, as text.
fn stable(contents: &Rows) -> String {
    let is_stable = |name: &&String| {
        // The search index of refusals is several tables.
        !VOLATILE.contains(&name.as_str()) && !name.starts_with("refusal_texts")
    };
    let mut all = String::new();
    for (table, rows) in contents {
        for row in rows.iter().filter(|_| is_stable(&table)) {
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
    watch: Watch,
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
        let before = self.watch.contents();
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
        let after = self.watch.contents();
        let changed = !Rc::ptr_eq(&before, &after) && stable(&before) != stable(&after);
        (outcome_of(&answer), changed, answer)
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
        watch: Watch::of(&server.database()),
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
    // By now the log has entries of almost every kind.
    expect_names_of_fields(&matrix.server);
}
