//! Forms of the panel that people fill: all faults at once, each at its field.

use crate::browser::{Browser, field};
use crate::support::{Response, Server};

/// The fields to which the summary of the faults on a page links, in its order.
pub fn linked_fields(page: &str) -> Vec<&str> {
    let links = page.split("<a href=\"#f-").skip(1);
    links.filter_map(|rest| rest.split('"').next()).collect()
}

/// The fields that are marked as faulty on a page, in its order, each of which is described by its fault.
pub fn marked_fields(page: &str) -> Vec<&str> {
    let marked = page.split("<span class=\"wrong\" id=\"e-").skip(1);
    let names: Vec<&str> = marked.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(page.matches("aria-invalid=\"true\"").count(), names.len());
    for name in &names {
        let names_it = |described: &str| {
            let ids = described.split('"').next().unwrap();
            ids.split_whitespace()
                .any(|id| id.strip_prefix("e-") == Some(*name))
        };
        let mut described = page.split("aria-describedby=\"").skip(1);
        assert!(described.any(names_it), "{name}");
    }
    names
}

/// Sends a form with several faults, and expects each at its field and in the summary.
fn expect_faults(panel: &mut Browser, path: &str, fields: &[(&str, &str)], expected: &[&str]) {
    let refused = panel.post(path, fields);
    assert_eq!(refused.status, 422, "{path}: {}", refused.text);
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    for mut found in [linked_fields(&refused.text), marked_fields(&refused.text)] {
        found.sort_unstable();
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn a_form_shows_all_its_faults_each_at_its_field() {
    let server = Server::start();
    server.json(&["plan", "add", "pro", "--name", "Pro"]);
    server.json(&["release", "add", "--notes", "First", "1.0.0"]);
    server.json(&["flag", "set", "beta", "--on"]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["license", "issue", "--customer", "1"]);
    let mut panel = server.logged_in_browser("owner");
    let long = "a".repeat(300);
    for (path, fields, expected) in [
        (
            "/customers/new",
            &[
                ("name", ""),
                ("company", &*long),
                ("email", "ada"),
                ("note", "\u{1b}"),
            ][..],
            &["name", "company", "email", "note"][..],
        ),
        (
            "/licenses/new",
            &[
                ("customer", "nobody"),
                ("plan", ""),
                ("kind", "full"),
                ("devices", "many"),
                ("valid_until", "2001-01-01"),
                ("features", "Pro!"),
                ("updates_until", "soon"),
                ("domain", "not a domain"),
                ("count", "0"),
                ("note", "\u{1b}"),
            ],
            &[
                "customer",
                "devices",
                "valid_until",
                "features",
                "updates_until",
                "domain",
                "count",
                "note",
            ],
        ),
        (
            "/licenses/1/edit",
            &[
                ("seen", "SEEN"),
                ("customer", "nobody"),
                ("plan", "nothing"),
                ("kind", "full"),
                ("devices", "0"),
                ("valid_from", "2026-13-01"),
                ("valid_until", "soon"),
                ("features", "Pro!"),
                ("updates_until", "soon"),
                ("note", "\u{1b}"),
            ],
            &[
                "customer",
                "plan",
                "devices",
                "valid_from",
                "valid_until",
                "features",
                "updates_until",
                "note",
            ],
        ),
        (
            "/plans/new",
            &[
                ("code", "pro"),
                ("name", ""),
                ("kind", "full"),
                ("device_limit", "x"),
                ("term_days", ""),
                ("term_starts", "first_activation"),
                ("features", "Pro!"),
                ("updates_days", "0"),
            ],
            &[
                "code",
                "name",
                "device_limit",
                "term_days",
                "features",
                "updates_days",
            ],
        ),
        (
            "/releases/new",
            &[
                ("version", "1.0.0"),
                ("channel", "Stable!"),
                ("url", "http://example.org"),
                ("sha256", "1"),
                ("notes", ""),
            ],
            &["version", "channel", "url", "sha256"],
        ),
        (
            "/products/new",
            &[("name", ""), ("slug", "Not a slug")],
            &["name", "slug"],
        ),
        (
            "/admins/new",
            &[
                ("name", "two words"),
                ("role", "nothing"),
                ("password", "short"),
                ("again", "shorter"),
            ],
            &["name", "role", "password", "again"],
        ),
        (
            "/profile/password",
            &[
                ("old", "wrong"),
                ("password", "short"),
                ("again", "shorter"),
            ],
            &["old", "password", "again"],
        ),
        (
            "/config/update",
            &[
                ("part", "client"),
                ("seen", "SEEN"),
                ("client_name", ""),
                ("current_version", "1"),
                ("minimum_version", "x"),
                ("heartbeat_interval", "0"),
                ("session_timeout", "0"),
                ("session_policy", "reject"),
                ("offline_days", "91"),
            ],
            &[
                "client_name",
                "current_version",
                "minimum_version",
                "heartbeat_interval",
                "session_timeout",
                "offline_days",
            ],
        ),
        (
            "/config/update",
            &[
                ("part", "new_flag"),
                ("name", "beta"),
                ("description", &"a".repeat(501)),
                ("share", "101"),
            ],
            &["new_flag-name", "new_flag-description", "new_flag-share"],
        ),
        (
            "/config/update",
            &[
                ("part", "limit"),
                ("name", "login"),
                ("seen", "LIMIT"),
                ("per_minute", "x"),
                ("burst", "0"),
            ],
            &["limit:login-per_minute", "limit:login-burst"],
        ),
    ] {
        let seen = seen_of(&mut panel, path, fields);
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, if *name == "seen" { &*seen } else { *value }))
            .collect();
        expect_faults(&mut panel, path, &fields, expected);
    }
}

/// The revision that the form shows which these `fields` are sent by.
fn seen_of(panel: &mut Browser, path: &str, fields: &[(&str, &str)]) -> String {
    if !fields.iter().any(|(name, _)| *name == "seen") {
        return String::new();
    }
    let page = panel.get(path.strip_suffix("/update").unwrap_or(path)).text;
    let part = fields.iter().find(|(name, _)| *name == "part");
    let form = match part {
        Some((_, "limit")) => "name=\"name\" value=\"login\"",
        _ => "<main",
    };
    let (_, form) = page.split_once(form).unwrap();
    field(form, "seen")
}

#[test]
fn what_is_refused_undoes_all_that_the_form_asked_for() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    // The new customer is fine, and the license has a fault that only the form can find.
    let fields = [
        ("customer", "Ada"),
        ("new_customer", "1"),
        ("kind", "full"),
        ("devices", "1"),
        ("count", "one"),
    ];
    expect_faults(&mut panel, "/licenses/new", &fields, &["count"]);
    let customers = server.json(&["customer", "list"]);
    assert_eq!(customers["customers"].as_array().unwrap().len(), 0);
}

/// The path that a response redirects to, which was made by a form.
pub fn made(response: &Response) -> &str {
    assert_eq!(response.status, 303, "{}", response.text);
    response.header("location").unwrap()
}

#[test]
fn a_form_that_is_sent_twice_makes_one_thing() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let form_id = field(&panel.get("/customers/new").text, "form_id");
    let csrf_token = panel.csrf_token();
    let customer = |name: &'static str| {
        [
            ("form_id", form_id.clone()),
            ("csrf_token", csrf_token.clone()),
            ("name", name.to_owned()),
        ]
    };
    let send = |panel: &mut Browser, path: &str, fields: &[(&str, String)]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        panel.post_bare(path, &fields)
    };
    // Side by side.
    let both = [panel.clone(), panel.clone()].map(|mut panel| {
        let fields = customer("Ada");
        std::thread::spawn(move || {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            panel.post_bare("/customers/new", &fields)
        })
    });
    for response in both.map(|thread| thread.join().unwrap()) {
        assert_eq!(made(&response), "/lizenzserver/customers/1");
    }
    // One after the other; the page that it leads to reports it each time.
    let again = send(&mut panel, "/customers/new", &customer("Ada"));
    assert_eq!(made(&again), "/lizenzserver/customers/1");
    assert!(panel.follow(&again).text.contains("Saved."));
    // What was changed before it was sent again is another customer.
    let other = send(&mut panel, "/customers/new", &customer("Bob"));
    assert_eq!(made(&other), "/lizenzserver/customers/2");
    let issue_id = field(&panel.get("/licenses/new").text, "form_id");
    let license = [
        ("form_id", issue_id),
        ("csrf_token", csrf_token.clone()),
        ("customer", "1".to_owned()),
        ("kind", "trial".to_owned()),
        ("devices", "1".to_owned()),
        ("count", "3".to_owned()),
    ];
    for _ in 0..2 {
        let issued = send(&mut panel, "/licenses/new", &license);
        assert_eq!(made(&issued), "/lizenzserver/licenses/issued/1/3");
    }
    let page = panel.get("/licenses/1/extend").text;
    let extension = [
        ("form_id", field(&page, "form_id")),
        ("seen", field(&page, "seen")),
        ("csrf_token", csrf_token.clone()),
        ("days", "10".to_owned()),
    ];
    let extended = [(); 2].map(|()| {
        let extended = send(&mut panel, "/licenses/1/extend", &extension);
        assert_eq!(made(&extended), "/lizenzserver/licenses/1");
        panel.get("/licenses.csv").text
    });
    assert_eq!(extended[0], extended[1]);
    let key = field(&panel.get("/licenses/new").text, "form_id");
    assert_ne!(key, form_id);
}

#[test]
fn a_form_that_script_saves_gets_no_redirect_but_is_told() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let page = panel.get("/config").text;
    let limit = page.split("name=\"name\" value=\"login\"").nth(1).unwrap();
    let limit = [
        ("part", "limit"),
        ("name", "login"),
        ("seen", &*field(limit, "seen")),
        ("per_minute", "7"),
        ("burst", "7"),
    ];
    panel.headers.push(("X-Save".to_owned(), "1".to_owned()));
    let saved = panel.post("/config/update", &limit);
    assert_eq!((saved.status, saved.header("x-saved")), (200, Some("1")));
    // It was changed since the form was made.
    let late = panel.post("/config/update", &limit);
    assert_eq!((late.status, late.header("x-saved")), (422, None));
    let forged = panel.post_bare("/config/update", &limit);
    assert_eq!((forged.status, forged.header("x-saved")), (403, None));
    panel.set_cookie("__Host-session", "ended");
    let ended = panel.post_bare("/config/update", &limit);
    assert_eq!((ended.status, ended.header("x-saved")), (401, None));
}
