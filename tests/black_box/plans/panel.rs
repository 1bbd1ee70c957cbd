//! The panel's pages for plans, and licenses that are issued by them.

use serde_json::json;

use super::commands::{issue, key_of, shop};
use crate::browser::field;
use crate::database;
use crate::licenses::panel::licenses;
use crate::support::{Server, identity};

/// The fields of the form for a plan; `more` replaces or adds fields.
fn plan<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("name", "Team"),
        ("kind", "full"),
        ("device_limit", "10"),
        ("term_days", ""),
        ("term_starts", "issue"),
        ("updates_days", ""),
        ("features", ""),
    ];
    for (name, text) in more {
        fields.retain(|(known, _)| known != name);
        fields.push((name, text));
    }
    fields
}

/// The form for a license as a browser sends it that leaves everything empty but customer and plan.
fn order<'a>(plan: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("customer", "Ada"),
        ("plan", plan),
        ("kind", ""),
        ("devices", ""),
        ("valid_until", ""),
        ("features", ""),
        ("updates_until", ""),
        ("count", "1"),
        ("domain", ""),
        ("note", ""),
    ];
    for (name, text) in more {
        fields.retain(|(known, _)| known != name);
        fields.push((name, text));
    }
    fields
}

#[test]
fn a_shop_without_plans_sees_nothing_of_them_in_its_licenses() {
    let server = Server::start();
    server.issue_license(1);
    let mut panel = server.logged_in_browser("admin");
    for path in [
        "/licenses/new",
        "/licenses/1/edit",
        "/licenses/1",
        "/licenses",
    ] {
        let page = panel.get(path);
        assert_eq!(page.status, 200, "{path}");
        for word in [
            "Plan",
            "name=\"features\"",
            "Updates until",
            "first activation",
        ] {
            assert!(!page.text.contains(word), "{path} has {word}");
        }
    }
    let empty = panel.get("/plans");
    assert!(empty.text.contains("No plans yet"), "{}", empty.text);
    assert!(
        panel
            .get("/config")
            .text
            .contains("href=\"/lizenzserver/plans\"")
    );
}

#[test]
fn a_license_is_issued_by_choosing_a_customer_and_a_plan() {
    let server = shop();
    let mut panel = server.logged_in_browser("admin");
    let form = panel.get("/licenses/new").text;
    assert!(
        form.contains("<option value=\"pro\">Pro (pro)</option>"),
        "{form}"
    );
    assert!(
        form.contains("<details><summary>Overrides of the plan"),
        "{form}"
    );
    let issued = panel.post("/licenses/new", &order("pro", &[]));
    assert_eq!(issued.status, 303, "{}", issued.text);
    let license = licenses(&server).remove(0);
    assert_eq!(license["plan"], "pro");
    assert_eq!(license["device_limit"], 3);
    assert_eq!(license["features"], json!(["export", "pro"]));
    assert_eq!(license["term_days_from_first_activation"], 365);
    let differing = [
        ("kind", "trial"),
        ("devices", "9"),
        ("valid_until", "2099-12-31"),
        ("features", "basic"),
        ("updates_until", "2098-12-31"),
        ("note", "agreed by phone"),
    ];
    let issued = panel.post("/licenses/new", &order("pro", &differing));
    assert_eq!(issued.status, 303, "{}", issued.text);
    let license = licenses(&server).remove(0);
    let facts = [
        "plan",
        "kind",
        "device_limit",
        "valid_until",
        "features",
        "updates_until",
    ];
    assert_eq!(
        json!(facts.map(|fact| &license[fact])),
        json!([
            "pro",
            "trial",
            9,
            "2099-12-31T23:59:59Z",
            ["basic"],
            "2098-12-31T23:59:59Z"
        ])
    );
    // Without a plan, in a shop that has some.
    let issued = panel.post("/licenses/new", &order("", &[]));
    assert_eq!(issued.status, 303, "{}", issued.text);
    let license = licenses(&server).remove(0);
    assert_eq!(
        json!([license["plan"], license["device_limit"]]),
        json!([null, 1])
    );
    for (name, text, problem) in [
        ("plan", "nothing", "no plan with this code"),
        ("features", "Pro!", "At most 50 words"),
        ("updates_until", "soon", "2027-12-31"),
        ("devices", "0", "from 1 to 100000"),
    ] {
        let refused = panel.post("/licenses/new", &order("pro", &[(name, text)]));
        assert_eq!(refused.status, 422, "{name}");
        assert!(refused.text.contains(problem), "{name}: {}", refused.text);
        assert!(
            refused.text.contains(&format!("href=\"#f-{name}\"")),
            "{name}"
        );
        assert!(refused.text.contains("<details open>"), "{name}");
    }
    assert_eq!(licenses(&server).len(), 3);
}

#[test]
fn plans_are_added_and_edited_and_invalid_ones_shown_again() {
    let server = shop();
    let mut panel = server.logged_in_browser("admin");
    let add = plan(&[("code", "team"), ("term_days", "30"), ("features", "b, a")]);
    let added = panel.post("/plans/new", &add);
    assert_eq!(added.header("location"), Some("/lizenzserver/plans"));
    let shown = server.json(&["plan", "show", "team"]);
    assert_eq!(shown["features"], json!(["a", "b"]));
    assert_eq!(
        json!([shown["term_days"], shown["updates_days"]]),
        json!([30, null])
    );
    for (name, text, problem) in [
        ("code", "Team 2", "hyphens"),
        ("code", "", "hyphens"),
        ("name", "", "at most 100 characters"),
        ("kind", "gift", "full or trial"),
        ("device_limit", "0", "from 1 to 100000"),
        ("term_days", "x", "from 1 to 36500"),
        ("term_starts", "soon", "when the term starts"),
        ("updates_days", "0", "from 1 to 36500"),
        ("features", "Pro!", "At most 50 words"),
    ] {
        let fields = plan(&[("code", "other"), (name, text)]);
        let refused = panel.post("/plans/new", &fields);
        assert_eq!(refused.status, 422, "{name} {text}");
        assert!(refused.text.contains(problem), "{name}: {}", refused.text);
        assert!(
            refused.text.contains(&format!("href=\"#f-{name}\"")),
            "{name}"
        );
    }
    let without_days = plan(&[("code", "other"), ("term_starts", "first_activation")]);
    let refused = panel.post("/plans/new", &without_days);
    assert!(refused.status == 422 && refused.text.contains("it is required"));
    let taken = panel.post("/plans/new", &plan(&[("code", "pro")]));
    assert!(taken.status == 422 && taken.text.contains("never used twice"));
    // The second of two edits is a conflict.
    let mut other = server.logged_in_browser("owner");
    let seen = field(&panel.get("/plans/team/edit").text, "seen");
    let saved = other.post(
        "/plans/team/edit",
        &plan(&[("name", "Crew"), ("seen", &seen)]),
    );
    assert_eq!(saved.status, 303, "{}", saved.text);
    let late = panel.post(
        "/plans/team/edit",
        &plan(&[("name", "Club"), ("seen", &seen)]),
    );
    assert!(late.status == 422 && late.text.contains("Someone else changed this"));
    assert!(late.text.contains("Saved meanwhile: Crew") && late.text.contains("value=\"Club\""));
    let again = field(&late.text, "seen");
    let saved = panel.post(
        "/plans/team/edit",
        &plan(&[("name", "Club"), ("seen", &again)]),
    );
    assert_eq!(saved.status, 303);
    assert_eq!(server.json(&["plan", "show", "team"])["name"], "Club");
    let list = panel.get("/plans").text;
    for word in [
        "Club",
        "365 days, starts with the first activation",
        "730 days",
        "export pro",
    ] {
        assert!(list.contains(word), "{word}: {list}");
    }
}

#[test]
fn an_archived_plan_is_offered_no_more_and_its_licenses_stay() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    let mut panel = server.logged_in_browser("admin");
    let asked = panel.get("/plans/pro/archive").text;
    assert!(asked.contains("Archive the plan Pro?"), "{asked}");
    assert!(server.json(&["plan", "show", "pro"])["archived_at"].is_null());
    let done = panel.post("/plans/pro/archive", &[]);
    assert_eq!(done.header("location"), Some("/lizenzserver/plans"));
    assert!(!panel.get("/licenses/new").text.contains("name=\"plan\""));
    let refused = panel.post("/licenses/new", &order("pro", &[]));
    assert!(refused.status == 422 && refused.text.contains("is archived"));
    let lists = ["all", "for_sale", "archived"].map(|state| {
        let page = panel.get(&format!("/plans?state={state}")).text;
        page.contains("/lizenzserver/plans/pro/edit")
    });
    assert_eq!(lists, [true, false, true]);
    // The license keeps its plan, also if its form is saved.
    let form = panel.get("/licenses/1/edit").text;
    assert!(
        form.contains("<option value=\"pro\" selected>Pro (pro)</option>"),
        "{form}"
    );
    let shown = server.json(&["license", "show", key_of(&license)]);
    assert_eq!(shown["plan"], "pro");
}

#[test]
fn applying_a_plan_asks_with_the_number_of_its_licenses() {
    let server = shop();
    let first = issue(&server, &["--plan", "pro"]);
    for _ in 0..2 {
        issue(&server, &["--plan", "pro"]);
    }
    for device in ["laptop", "desktop"] {
        server.call("activate", &identity(key_of(&first), device));
    }
    let mut panel = server.logged_in_browser("admin");
    let early = field(&panel.get("/plans/pro/apply").text, "seen");
    server.json(&["plan", "edit", "pro", "--devices", "1"]);
    let conflict = panel.post("/plans/pro/apply", &[("seen", &early)]);
    let again = "/lizenzserver/plans/pro/apply";
    assert_eq!(conflict.header("location"), Some(again));
    let asked = panel.get("/plans/pro/apply").text;
    assert!(
        asked.contains("Apply the plan Pro to its 3 licenses?"),
        "{asked}"
    );
    assert!(asked.contains("One license stays as it is"), "{asked}");
    assert!(
        asked.contains(key_of(&first)) && asked.contains("2 devices"),
        "{asked}"
    );
    let limits = || {
        json!(
            licenses(&server)
                .iter()
                .map(|l| l["device_limit"].clone())
                .collect::<Vec<_>>()
        )
    };
    assert_eq!(limits(), json!([3, 3, 3]));
    let seen = field(&asked, "seen");
    let done = panel.post("/plans/pro/apply", &[("seen", &seen)]);
    let in_part = "/lizenzserver/plans/pro/apply";
    assert_eq!(done.header("location"), Some(in_part));
    assert_eq!(limits(), json!([1, 1, 3]));
    let reported = panel.follow(&done).text;
    assert!(
        reported.contains("except to the licenses below"),
        "{reported}"
    );
    server.json(&["license", "release-device", key_of(&first), "desktop"]);
    let done = panel.post("/plans/pro/apply", &[("seen", &seen)]);
    assert_eq!(done.header("location"), Some("/lizenzserver/plans"));
    assert_eq!(limits(), json!([1, 1, 1]));
    assert_eq!(database::audited(&server, "plans.apply").len(), 2);
    // The audit log has a section for plans.
    let log = panel.get("/audit?room=plans").text;
    for word in ["Plan applied to its licenses", "Plan changed", "Plan added"] {
        assert!(log.contains(word), "{word}: {log}");
    }
    assert!(!log.contains("License issued"), "{log}");
}

#[test]
fn a_license_shows_its_plan_features_updates_and_pending_term() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    let mut panel = server.logged_in_browser("admin");
    let pending = "365 days, starts with the first activation";
    for path in [
        "/licenses/1",
        "/licenses",
        "/licenses/1/extend",
        "/customers/1",
    ] {
        let page = panel.get(path).text;
        assert!(page.contains(pending), "{path}: {page}");
    }
    let page = panel.get("/licenses/1").text;
    for part in ["<code>pro</code>", "<code>export</code>", "Updates until"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let mut german = server.logged_in_browser_as("hans", "admin");
    german.set_cookie("lang", "de");
    let page = german.get("/licenses/1").text;
    assert!(
        page.contains("365 Tage ab der ersten Aktivierung"),
        "{page}"
    );
    let file = panel.get("/licenses.csv").text;
    let row = file.lines().nth(1).unwrap();
    let until = license["updates_until"].as_str().unwrap();
    let end = format!(",\"pro\",\"export pro\",\"{until}\",\"365\",\"\"");
    assert!(row.ends_with(&end), "{row}");
}

#[test]
fn the_form_of_a_license_edits_plan_features_updates_term_and_customer() {
    let server = shop();
    server.json(&["customer", "add", "Bob"]);
    server.json(&["plan", "add", "team", "--name", "Team"]);
    let license = issue(&server, &["--plan", "pro"]);
    let key = key_of(&license);
    let mut panel = server.logged_in_browser("admin");
    let form = panel.get("/licenses/1/edit").text;
    assert!(form.contains("name=\"pending_days\""), "{form}");
    let from = license["valid_from"].as_str().unwrap()[..10].to_owned();
    let fields = |more: &[(&'static str, &'static str)], seen: &str| {
        let mut all = vec![
            ("customer", "Bob (#2)".to_owned()),
            ("plan", "team".to_owned()),
            ("kind", "full".to_owned()),
            ("devices", "4".to_owned()),
            ("valid_from", from.clone()),
            ("valid_until", String::new()),
            ("pending_days", "100".to_owned()),
            ("features", "one two".to_owned()),
            ("updates_until", "2098-12-31".to_owned()),
            ("note", String::new()),
            ("seen", seen.to_owned()),
        ];
        for (name, text) in more {
            all.retain(|(known, _)| known != name);
            all.push((name, (*text).to_owned()));
        }
        all
    };
    let mut send = |more: &[(&'static str, &'static str)]| {
        let seen = field(&panel.get("/licenses/1/edit").text, "seen");
        let fields = fields(more, &seen);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, t)| (*n, t.as_str())).collect();
        panel.post("/licenses/1/edit", &fields)
    };
    for (name, text, problem) in [
        ("plan", "nothing", "no plan with this code"),
        ("pending_days", "0", "enter 1 to 36500 days"),
        ("features", "Pro!", "At most 50 words"),
        ("updates_until", "soon", "2027-12-31"),
        ("customer", "Carl", "No customer has this ID or name"),
    ] {
        let refused = send(&[(name, text)]);
        assert_eq!(refused.status, 422, "{name}");
        assert!(refused.text.contains(problem), "{name}: {}", refused.text);
    }
    assert_eq!(send(&[]).status, 303);
    let edited = server.json(&["license", "show", key]);
    let facts = [
        "customer",
        "plan",
        "device_limit",
        "features",
        "updates_until",
        "valid_until",
        "term_days_from_first_activation",
    ];
    assert_eq!(
        json!(facts.map(|fact| &edited[fact])),
        json!([
            "Bob",
            "team",
            4,
            ["one", "two"],
            "2098-12-31T23:59:59Z",
            null,
            100
        ])
    );
    // A last day ends the term without an activation.
    assert_eq!(send(&[("valid_until", "2099-12-31")]).status, 303);
    let fixed = server.json(&["license", "show", key]);
    assert_eq!(fixed["valid_until"], "2099-12-31T23:59:59Z");
    assert_eq!(fixed["term_days_from_first_activation"], json!(null));
    let begun = send(&[("pending_days", "5"), ("valid_until", "")]);
    assert!(begun.status == 422 && begun.text.contains("until the term has begun"));
}
