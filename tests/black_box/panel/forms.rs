//! Forms of the panel that people fill: all faults at once, each at its field.

use crate::browser::{Browser, field};
use crate::support::Server;

/// The fields to which the summary of the faults on a page links, in its order.
fn linked_fields(page: &str) -> Vec<&str> {
    let links = page.split("<a href=\"#f-").skip(1);
    links.filter_map(|rest| rest.split('"').next()).collect()
}

/// The fields that are marked as faulty on a page, in its order, each of which is described by its fault.
fn marked_fields(page: &str) -> Vec<&str> {
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
