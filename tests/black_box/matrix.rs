//! Who may do what in the panel: every route × (nobody, support, admin, owner) × (with, without, with
//! somebody else's proof). A route without a row fails, and so does a row without a route.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use crate::browser::{Browser, HOME, PASSWORD};
use crate::shop::{self, Shop};
use crate::support::{Answer, Server};

/// Whose role suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Anybody,
    Support,
    Admin,
    Owner,
    /// Whose second factor is missing; `accounts` shows what he may do.
    HalfIn,
    /// Nobody, once there is an administrator.
    Dark,
}
use Who::{Admin, Anybody, Dark, HalfIn, Owner, Support};

const ROLES: &[(&str, Who)] = &[("support", Support), ("admin", Admin), ("owner", Owner)];

/// A route, whose role suffices, and for a change what is typed so that it really changes something. They
/// run in this order: what ends something comes last.
type Row = (&'static str, Who, &'static [(&'static str, &'static str)]);
const ROWS: &[Row] = &[
    ("GET /panel.css", Anybody, &[]),
    ("GET /panel.js", Anybody, &[]),
    ("GET /mark.svg", Anybody, &[]),
    ("GET /login", Anybody, &[]),
    (
        "POST /login",
        Anybody,
        &[("name", "owner"), ("password", "seven green bicycles")],
    ),
    ("POST /appearance", Anybody, &[("theme", "dark")]),
    ("GET /login/code", HalfIn, &[]),
    ("POST /login/code", HalfIn, &[]),
    ("GET /setup", Dark, &[]),
    ("POST /setup", Dark, &[("name", "eve")]),
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
    ("POST /logout", Support, &[]),
];
/// Changes that take what a row cannot know, such as a code of a telephone; `accounts` shows them.
const ELSEWHERE: &[&str] = &[
    "POST /profile/totp",
    "POST /profile/codes",
    "POST /profile/logins/<id>/end",
];
/// Open routes that change nothing in the file: a taste is kept by the browser.
const IN_THE_BROWSER: &[&str] = &["POST /appearance"];
/// Tables and columns that change by themselves.
const RESTLESS: &[&str] = &["server_state", "daily_refusals", "seen_at_ms"];

/// Everything in the file.
fn dump(server: &Server) -> String {
    let conn = Connection::open_with_flags(server.database(), OpenFlags::SQLITE_OPEN_READ_ONLY);
    let conn = conn.unwrap();
    let names = "select name from sqlite_schema where type = 'table' order by name";
    let mut tables = conn.prepare(names).unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut all = String::new();
    for table in tables
        .map(Result::unwrap)
        .filter(|name| !RESTLESS.contains(&name.as_str()))
    {
        let mut rows = conn
            .prepare(&format!("select * from {table} order by 1, 2"))
            .unwrap();
        let names: Vec<String> = rows.column_names().map(ToString::to_string).collect();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            write!(all, "\n{table}").unwrap();
            for name in names
                .iter()
                .filter(|name| !RESTLESS.contains(&name.as_str()))
            {
                write!(all, " {name}={:?}", row.get::<_, Value>(&**name).unwrap()).unwrap();
            }
        }
    }
    all
}

/// What an answer says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Log in first.
    LogIn,
    /// You may not, or this form is not ours.
    Refused,
    /// There is no such thing, or something broke.
    Broken,
    /// A page, a file, another address, or what is wrong with the form.
    Heard,
}

fn told(answer: &Answer) -> Told {
    let to_login = answer
        .header("location")
        .is_some_and(|to| to.starts_with("/lizenzserver/login") && !to.contains("/login/"));
    match answer.status {
        303 if to_login => Told::LogIn,
        403 => Told::Refused,
        200 | 303 | 409 | 422 => Told::Heard,
        _ => Told::Broken,
    }
}

/// The hidden fields of the form on `page` that goes to `path`, but its proof.
fn hidden(page: &str, path: &str) -> Vec<(String, String)> {
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
        .filter(|(name, _)| name != "proof")
        .collect()
}

/// A stage on which every row is played.
struct Matrix {
    server: Server,
    shop: Shop,
    wrong: String,
}

impl Matrix {
    fn path(&self, route: &str) -> String {
        let path = route.split(' ').nth(1).unwrap();
        self.shop
            .path(path)
            .unwrap_or_else(|| panic!("nothing is known that opens {route}"))
    }

    /// Sends a row: what it was told, and whether the file is another one afterwards.
    fn send(
        &self,
        browser: &mut Browser,
        (route, _, typed): Row,
        proof: Option<&str>,
        seen: &[(String, String)],
    ) -> (Told, bool, Answer) {
        let path = self.path(route);
        let before = dump(&self.server);
        let answer = if route.starts_with("GET") {
            browser.get(&path)
        } else {
            let typed = typed.iter().map(|(name, text)| (*name, self.filled(text)));
            let mut fields: Vec<(&str, String)> = typed.collect();
            for (name, value) in seen {
                if !fields.iter().any(|(known, _)| known == name) {
                    fields.push((name, value.clone()));
                }
            }
            fields.extend(proof.map(|proof| ("proof", proof.to_owned())));
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            browser.post_bare(&path, &fields)
        };
        (told(&answer), dump(&self.server) != before, answer)
    }

    /// What is typed may name what the shop has.
    fn filled(&self, text: &str) -> String {
        let group = self.shop.key.rsplit('-').next().unwrap();
        text.replace("{key}", &self.shop.key)
            .replace("{group}", group)
    }

    fn expect(&mut self, what: &str, is: (Told, bool, Answer), wanted: Told) {
        let (told, changed, answer) = is;
        if told != wanted || changed {
            let status = answer.status;
            writeln!(
                self.wrong,
                "{what}: {told:?} ({status}), changed: {changed}"
            )
            .unwrap();
        }
    }

    /// Nobody, too small a role, no proof, somebody else's proof, another site: refused, and nothing changes.
    fn refusals(&mut self, row: Row, people: &mut [(Who, Browser, String)], foreign: &str) {
        let (route, suffices, _) = row;
        let changing = !route.starts_with("GET");
        let mut nobody = self.server.browser();
        for proof in [None, Some(foreign)] {
            let answer = self.send(&mut nobody, row, proof, &[]);
            self.expect(&format!("{route}, nobody"), answer, Told::LogIn);
        }
        for (role, browser, own) in people {
            for (kind, proof) in [
                ("no", None),
                ("foreign", Some(foreign)),
                ("own", Some(&**own)),
            ] {
                if *role < suffices || (changing && kind != "own") {
                    let answer = self.send(browser, row, proof, &[]);
                    let what = format!("{route}, {role:?}, {kind} proof");
                    self.expect(&what, answer, Told::Refused);
                }
            }
            if changing {
                let mut elsewhere = browser.clone();
                elsewhere.headers = vec![("Sec-Fetch-Site".to_owned(), "cross-site".to_owned())];
                let answer = self.send(&mut elsewhere, row, Some(own), &[]);
                self.expect(
                    &format!("{route}, {role:?}, from elsewhere"),
                    answer,
                    Told::Refused,
                );
            }
        }
    }

    /// Each role that suffices is heard, and the first of them really changes something.
    fn grants(&mut self, row: Row) {
        let (route, suffices, _) = row;
        let mut first = true;
        for (name, role) in ROLES.iter().filter(|(_, role)| *role >= suffices) {
            let mut browser = self.server.panel(name);
            let proof = browser.proof();
            let path = self.path(route);
            let changing = !route.starts_with("GET");
            let page = if changing {
                browser.get(&path).text
            } else {
                String::new()
            };
            let seen = hidden(&page, &path);
            let (told, changed, answer) = self.send(&mut browser, row, Some(&proof), &seen);
            let leaves = route == "POST /logout" && told == Told::LogIn;
            if told != Told::Heard && !leaves && (first || told != Told::Broken) {
                writeln!(self.wrong, "{route}, {role:?}: {told:?} {answer:?}").unwrap();
            }
            if changing && first && !changed && !ELSEWHERE.contains(&route) {
                writeln!(self.wrong, "{route}, {role:?}: nothing changed: {answer:?}").unwrap();
            }
            first = false;
        }
    }

    /// A dark route answers everybody as any unknown one does.
    fn dark(&mut self, row: Row, people: &mut [(Who, Browser, String)]) {
        let (route, _, _) = row;
        let mut nobody = self.server.browser();
        let unknown = nobody.get("/nothing-here").status;
        let mut all = vec![(nobody, None)];
        for (_, browser, own) in people {
            all.push((browser.clone(), Some(&**own)));
        }
        for (browser, proof) in &mut all {
            let (told, changed, answer) = self.send(browser, row, *proof, &[]);
            if answer.status != unknown || changed || !answer.text.is_empty() {
                writeln!(self.wrong, "{route}: {told:?}, {changed}, {answer:?}").unwrap();
            }
        }
    }

    /// An open route hears everybody, but no other site.
    fn open(&mut self, row: Row) {
        let (route, _, _) = row;
        let mut nobody = self.server.browser();
        if route.starts_with("POST") {
            let mut elsewhere = nobody.clone();
            elsewhere.headers.clear();
            let answer = self.send(&mut elsewhere, row, None, &[]);
            self.expect(&format!("{route}, from elsewhere"), answer, Told::Refused);
        }
        let (told, changed, answer) = self.send(&mut nobody, row, None, &[]);
        let wanted = route.starts_with("POST") && !IN_THE_BROWSER.contains(&route);
        if told != Told::Heard || changed != wanted {
            writeln!(
                self.wrong,
                "{route}, nobody: {told:?}, {changed}, {answer:?}"
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
fn every_route_hears_those_whose_role_suffices_and_nobody_else() {
    let server = Server::start();
    for group in ["login", "client"] {
        server.json(&["limit", "set", group, "--per-minute", "0"]);
    }
    // Nothing may time out meanwhile: that would be a change.
    server.json(&["config", "set", "session_timeout=86400"]);
    let shop = shop::open(&server, "");
    let wrong = String::new();
    let mut people = Vec::new();
    for (name, role) in ROLES {
        let mut browser = server.panel(name);
        let proof = browser.proof();
        people.push((*role, browser, proof));
    }
    // Of another login of the same person, who may do everything.
    let foreign = server.panel("owner").proof();
    let mut matrix = Matrix {
        server,
        shop,
        wrong,
    };
    for row in ROWS {
        match row.1 {
            Anybody => {}
            HalfIn => matrix.refusals(*row, &mut [], &foreign),
            Dark => matrix.dark(*row, &mut people),
            _ => matrix.refusals(*row, &mut people, &foreign),
        }
    }
    for row in ROWS {
        match row.1 {
            Anybody => matrix.open(*row),
            HalfIn | Dark => {}
            _ => matrix.grants(*row),
        }
    }
    assert!(matrix.wrong.is_empty(), "{}", matrix.wrong);
}

/// Headers as no browser of ours sends them, or as only our own script does.
const ODD: &[&[(&str, &str)]] = &[
    &[("X-Fragment", "1")],
    &[
        ("X-Fragment", "0"),
        ("If-None-Match", "W/\"x\", *"),
        ("Range", "bytes=9-1"),
        ("Accept", "image/png"),
    ],
    &[
        ("X-Fragment", "1"),
        ("Accept-Language", ",;q=x,-,*;q=9"),
        ("Cookie", "lang=xx; theme=\"; done"),
        ("Referer", "::"),
        ("Origin", "null"),
        ("User-Agent", "\u{ff}"),
        ("Forwarded", "for=;by"),
        ("X-Forwarded-For", "unknown"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("If-Modified-Since", "yesterday"),
    ],
];

#[test]
fn no_header_breaks_a_page_or_a_form() {
    let server = Server::start();
    server.json(&["limit", "set", "login", "--per-minute", "0"]);
    let shop = shop::open(&server, "");
    let mut people = [server.panel("owner"), server.browser()];
    let mut wrong = String::new();
    for (route, _, _) in ROWS.iter().filter(|(route, _, _)| *route != "POST /logout") {
        let path = shop.path(route.split(' ').nth(1).unwrap()).unwrap();
        for person in &mut people {
            let proof = person.proof();
            for odd in ODD {
                let usual = person.headers.clone();
                let pairs = odd
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                person.headers.extend(pairs);
                let answer = if route.starts_with("GET") {
                    person.get(&path)
                } else {
                    // Nothing typed: most forms come back with what is wrong with them.
                    person.post_bare(&path, &[("proof", &proof)])
                };
                person.headers = usual;
                if answer.status >= 500 && !answer.text.is_empty() {
                    writeln!(wrong, "{route}, {odd:?}: {} {}", answer.status, answer.text).unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
