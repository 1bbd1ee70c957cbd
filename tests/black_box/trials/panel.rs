//! Trials in the panel and in commands: the offer, the sale, and licenses without a customer.

use serde_json::{Value, json};

use super::{OFFER, PLAN, PRO, offering, refused, shown, trial};
use crate::browser::Browser;
use crate::database;
use crate::setup::{FIRST, SECOND, started, two_products};
use crate::support::{Response, Server, eventually, heartbeat_body, identity};

/// Posts the form of the settings.
fn post_settings(panel: &mut Browser, fields: &[(String, String)]) -> Response {
    let fields = fields.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    panel.post("/config/update", &fields.collect::<Vec<_>>())
}

/// The hidden field `seen` of a part of the settings page.
fn seen(page: &str, part: &str, name: &str) -> String {
    let part = page
        .split(&format!("name=\"part\" value=\"{part}\""))
        .find(|rest| {
            name.is_empty() && rest.contains("name=\"seen\"")
                || rest.starts_with(&format!(
                    "><input type=\"hidden\" name=\"name\" value=\"{name}\""
                ))
        });
    let rest = part
        .unwrap()
        .split("name=\"seen\" value=\"")
        .nth(1)
        .unwrap();
    rest.split('"').next().unwrap().to_owned()
}

/// The key of the trial of a device.
fn key_of(server: &Server, name: &str) -> String {
    let answer = trial(&server.client(), name);
    answer.body["license_key"].as_str().unwrap().to_owned()
}

/// Lets the trial of a license have started so many days ago.
fn start_days_ago(server: &Server, license: i64, days: i64) {
    let sql = "update trials set started_at_ms = started_at_ms - 86400000 *";
    database::change(
        server,
        &format!("{sql} {days} where license_id = {license}"),
    );
}

fn english(server: &Server, role: &str) -> Browser {
    let mut panel = server.logged_in_browser(role);
    panel.set_cookie("lang", "en");
    panel
}

#[test]
fn the_settings_offer_trials_once_there_is_a_plan_for_them() {
    let server = started(&[], &[PRO]);
    let mut panel = english(&server, "admin");
    let page = panel.get("/config").text;
    assert!(
        !page.to_lowercase().contains("trial"),
        "a shop without such a plan sees nothing of it"
    );
    server.json(PLAN);
    let page = panel.get("/config").text;
    assert!(page.contains("name=\"trial_plan\""), "{page}");
    assert!(
        page.contains("<option value=\"try\">14 days</option>"),
        "{page}"
    );
    assert!(
        !page.contains("<option value=\"pro\""),
        "a full plan is none for trials"
    );
    assert!(page.contains("New trials without a key"));
    let form = |page: &str, trial_plan: Option<&str>| {
        let mut fields = vec![
            ("part".to_owned(), "client".to_owned()),
            ("seen".to_owned(), seen(page, "client", "")),
        ];
        let config = server.json(&["config", "show"]);
        for name in [
            "client_name",
            "current_version",
            "minimum_version",
            "session_policy",
        ] {
            fields.push((name.to_owned(), config[name].as_str().unwrap().to_owned()));
        }
        for name in ["heartbeat_interval", "session_timeout", "offline_days"] {
            fields.push((name.to_owned(), config[name].to_string()));
        }
        fields.extend(trial_plan.map(|plan| ("trial_plan".to_owned(), plan.to_owned())));
        fields
    };
    assert_eq!(
        post_settings(&mut panel, &form(&page, Some("try"))).status,
        303
    );
    assert_eq!(server.json(&["config", "show"])["trial_plan"], "try");
    let mut reader = english(&server, "support");
    let page = reader.get("/config").text;
    assert!(
        page.contains("<code>try</code>") && page.contains("10 per hour"),
        "{page}"
    );
    let mut panel = english(&server, "owner");
    let page = panel.get("/config").text;
    assert!(page.contains("<option value=\"try\" selected>"), "{page}");
    assert_eq!(
        post_settings(&mut panel, &form(&page, None)).status,
        303,
        "a form without the field changes nothing"
    );
    assert_eq!(server.json(&["config", "show"])["trial_plan"], "try");
    let wrong = post_settings(&mut panel, &form(&page, Some("pro")));
    assert_eq!(wrong.status, 422);
    assert!(
        wrong.text.contains("href=\"#f-trial_plan\""),
        "{}",
        wrong.text
    );
    assert_eq!(
        post_settings(&mut panel, &form(&page, Some(""))).status,
        303
    );
    assert_eq!(server.json(&["config", "show"])["trial_plan"], Value::Null);
}

#[test]
fn the_limit_of_new_trials_is_changed_on_the_settings_page() {
    let server = offering();
    let mut panel = english(&server, "admin");
    let page = panel.get("/config").text;
    let token = seen(&page, "limit", "trials");
    let fields = |per_hour: &'static str| {
        [
            ("part", "limit".to_owned()),
            ("name", "trials".to_owned()),
            ("seen", token.clone()),
            ("per_hour", per_hour.to_owned()),
        ]
    };
    let mut post = |per_hour| {
        let fields = fields(per_hour);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        panel.post("/config/update", &fields)
    };
    for wrong in ["10001", "many", "-1"] {
        let refused = post(wrong);
        assert_eq!(refused.status, 422, "{wrong}");
        assert!(
            refused.text.contains("href=\"#f-limit:trials-per_hour\""),
            "{}",
            refused.text
        );
        assert!(refused.text.contains("from 0 to 10000"), "{}", refused.text);
    }
    assert_eq!(post("25").status, 303);
    let listed = server.json(&["limit", "list"]);
    assert_eq!(
        listed["limits"][4],
        json!({ "name": "trials", "per_hour": 25 })
    );
}

#[test]
fn a_command_sets_the_trial_plan_to_a_plan_for_trials_only() {
    let server = started(&[], &[PRO, PLAN]);
    assert_eq!(server.json(&["config", "show"])["trial_plan"], Value::Null);
    for wrong in ["trial_plan=pro", "trial_plan=unknown", "trial_plan=TRY"] {
        let error = refused(&server, &["config", "set", wrong]);
        assert!(
            error.contains("trial_plan") && error.contains("kind trial"),
            "{error}"
        );
    }
    assert_eq!(server.json(OFFER)["trial_plan"], "try");
    let audited = database::audited(&server, "client_config.set");
    assert!(
        audited
            .last()
            .unwrap()
            .after
            .contains(r#""trial_plan":"try""#)
    );
    let error = refused(&server, &["plan", "archive", "try"]);
    assert!(error.contains("try") || error.contains("trial"), "{error}");
    assert_eq!(
        server.json(&["config", "set", "trial_plan="])["trial_plan"],
        Value::Null
    );
    server.json(&["plan", "archive", "try"]);
    let error = refused(&server, OFFER);
    assert!(error.contains("not archived"), "{error}");
}

#[test]
fn a_license_without_a_customer_reads_well_everywhere() {
    let server = offering();
    let key = key_of(&server, "laptop");
    server.client().session(&key, "laptop");
    let id = shown(&server, &key)["id"].as_i64().unwrap();
    for (language, words) in [
        ("en", "Trial, no customer yet"),
        ("de", "Testlizenz, noch ohne Kunde"),
    ] {
        let mut panel = server.logged_in_browser("admin");
        panel.set_cookie("lang", language);
        let session = server.json(&["session", "list"])["sessions"][0]["id"].clone();
        for path in [
            "/licenses".to_owned(),
            format!("/licenses?q={key}"),
            format!("/licenses/{id}"),
            format!("/licenses/{id}/edit"),
            format!("/licenses/{id}/extend"),
            format!("/licenses/{id}/suspend"),
            format!("/licenses/{id}/bind"),
            format!("/licenses/{id}/devices/1/release"),
            "/sessions".to_owned(),
            format!("/sessions/{session}/terminate"),
            "/config".to_owned(),
        ] {
            let page = panel.get(&path);
            assert_eq!(page.status, 200, "{path}");
            assert!(
                page.text.contains(words),
                "{path} {language}: {}",
                page.text
            );
            assert!(
                !page.text.contains("customers/\"") && !page.text.contains("customers/null"),
                "{path}"
            );
        }
        assert_eq!(panel.get(&format!("/integrate?license={id}")).status, 200);
    }
    let mut panel = server.logged_in_browser("admin");
    let csv = panel.get("/licenses.csv").text;
    let row = csv.lines().find(|line| line.contains(&key)).unwrap();
    assert!(row.contains(r#"","","","trial","#), "{row}");
    let part: String = key.chars().take(8).collect();
    for search in [key.as_str(), &part] {
        let listed = server.json(&["license", "list", "--search", search]);
        let licenses = listed["licenses"].as_array().unwrap();
        assert_eq!(licenses.len(), 1, "{search}");
        assert_eq!(licenses[0]["customer_id"], Value::Null);
        assert_eq!(licenses[0]["customer"], "");
    }
    for command in [
        &["license", "list"][..],
        &["license", "show", &key],
        &["session", "list"],
    ] {
        let table = String::from_utf8(server.cli(command).stdout).unwrap();
        assert!(table.contains("(trial, no customer yet)"), "{table}");
    }
    let session = server.json(&["session", "list"]);
    assert_eq!(session["sessions"][0]["customer"], "");
    let token = {
        let answer = server
            .client()
            .call("session/start", &identity(&key, "laptop"));
        assert_eq!(answer.status_and_code(), (409, "session_active"));
        let id = session["sessions"][0]["id"].to_string();
        server.json(&["session", "end", &id]);
        server.client().session(&key, "laptop")
    };
    server
        .client()
        .call("session/end", &heartbeat_body(&key, &token));
    let history = String::from_utf8(server.cli(&["session", "history"]).stdout).unwrap();
    assert!(history.contains("(trial, no customer yet)"), "{history}");
    panel.set_cookie("lang", "en");
    let page = panel.get("/sessions/history").text;
    assert!(page.contains("Trial, no customer yet"), "{page}");
}

#[test]
fn a_sold_trial_keeps_its_key_and_is_what_its_plan_sells() {
    let server = started(&[], &[PLAN, PRO, OFFER]);
    let client = server.client();
    let key = key_of(&server, "laptop");
    let before = shown(&server, &key);
    let id = before["id"].as_i64().unwrap();
    let mut panel = english(&server, "admin");
    let page = panel.get(&format!("/licenses/{id}")).text;
    assert!(page.contains(&format!("/licenses/{id}/sell")), "{page}");
    let path = format!("/licenses/{id}/sell");
    let form = panel.get(&path);
    assert!(
        form.text
            .contains("<option value=\"pro\">Pro (pro)</option>"),
        "{}",
        form.text
    );
    assert!(
        !form.text.contains("<option value=\"try\""),
        "only plans that end the trial"
    );
    for (fields, field) in [
        (vec![("customer", "Nobody"), ("plan", "pro")], "customer"),
        (
            vec![("customer", ""), ("new_customer", "1"), ("plan", "pro")],
            "customer",
        ),
        (
            vec![
                ("customer", "Ada"),
                ("new_customer", "1"),
                ("plan", "unknown"),
            ],
            "plan",
        ),
    ] {
        let refused = panel.post(&path, &fields);
        assert_eq!(refused.status, 422, "{fields:?}");
        assert!(
            refused.text.contains(&format!("href=\"#f-{field}\"")),
            "{}",
            refused.text
        );
        assert!(shown(&server, &key)["customer_id"].is_null());
    }
    assert_eq!(
        server.json(&["customer", "list"])["customers"],
        json!([]),
        "nothing is left half"
    );
    let sold = panel.post(
        &path,
        &[
            ("customer", "Ada Lovelace"),
            ("new_customer", "1"),
            ("plan", "pro"),
        ],
    );
    assert_eq!(sold.status, 303, "{}", sold.text);
    let page = panel.follow(&sold).text;
    assert!(
        page.contains("License sold.") && page.contains("License for Ada Lovelace"),
        "{page}"
    );
    assert!(!page.contains("/sell"), "it has a customer");
    let after = shown(&server, &key);
    assert_eq!(after["customer"], "Ada Lovelace");
    assert_eq!(
        (&after["kind"], &after["plan"]),
        (&json!("full"), &json!("pro"))
    );
    assert_eq!(after["device_limit"], 2);
    assert_eq!(after["license_key"], before["license_key"]);
    assert_eq!(after["valid_from"], before["valid_from"]);
    assert!(
        after["valid_until"].as_str() > before["valid_until"].as_str(),
        "a new term"
    );
    // The user's program goes on, and the license is bound to no device any more.
    let again = trial(&client, "laptop");
    assert_eq!(again.status, 200);
    assert_eq!(again.body["license_key"], json!(key));
    assert_eq!(again.body["license"]["kind"], "full");
    assert_eq!(
        client.call("activate", &identity(&key, "desktop")).status,
        201
    );
    let again = panel.post(&path, &[("customer", "Ada Lovelace"), ("plan", "")]);
    assert!([409, 422].contains(&again.status), "{}", again.status);
    assert!(
        again.text.contains("already belongs to a customer"),
        "{}",
        again.text
    );
    let audited = database::audited(&server, "licenses.assign");
    assert_eq!(audited.len(), 1);
    assert_eq!(audited[0].subject, id.to_string());
    // Its slots taken by others, the first device still learns its key.
    server.json(&["license", "release-device", &key, "laptop"]);
    assert_eq!(
        client.call("activate", &identity(&key, "tablet")).status,
        201
    );
    let full = trial(&client, "laptop");
    assert_eq!(
        (full.status, &full.body["code"]),
        (200, &json!("device_limit_reached"))
    );
    assert_eq!(
        (&full.body["valid"], &full.body["activated_at"]),
        (&json!(false), &Value::Null)
    );
}

#[test]
fn a_trial_is_sold_as_it_is_or_by_a_term_that_the_first_activation_begins() {
    let later = [
        "plan",
        "add",
        "later",
        "--name",
        "Later",
        "--term-days",
        "30",
        "--term-starts",
        "first_activation",
    ];
    let server = started(&[], &[PLAN, OFFER, &later, &["customer", "add", "Ada"]]);
    let mut panel = english(&server, "admin");
    let sell = |panel: &mut Browser, key: &str, plan: &str| {
        let id = shown(&server, key)["id"].to_string();
        let sold = panel.post(
            &format!("/licenses/{id}/sell"),
            &[("customer", "Ada"), ("plan", plan)],
        );
        assert_eq!(sold.status, 303, "{}", sold.text);
        shown(&server, key)
    };
    let plain = key_of(&server, "laptop");
    let before = shown(&server, &plain);
    let after = sell(&mut panel, &plain, "");
    assert_eq!(after["customer"], "Ada");
    for same in ["kind", "plan", "valid_until", "device_limit"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let active = key_of(&server, "desktop");
    let after = sell(&mut panel, &active, "later");
    assert!(
        after["valid_until"].is_string(),
        "a device holds its slot, so its term has begun"
    );
    let released = key_of(&server, "tablet");
    server.json(&["license", "release-device", &released, "tablet"]);
    let after = sell(&mut panel, &released, "later");
    assert_eq!(after["valid_until"], Value::Null);
    assert_eq!(
        server
            .client()
            .call("activate", &identity(&released, "phone"))
            .status,
        201
    );
    assert!(shown(&server, &released)["valid_until"].is_string());
    // Somebody with this name is a customer already.
    let named = key_of(&server, "console");
    let path = format!("/licenses/{}/sell", shown(&server, &named)["id"]);
    let mut fields = vec![("customer", " ada"), ("new_customer", "1"), ("plan", "")];
    let asked = panel.post(&path, &fields);
    assert_eq!(asked.status, 422, "{}", asked.text);
    for text in ["Use this one?", "Use Ada (#1)", "href=\"#f-customer\""] {
        assert!(asked.text.contains(text), "{text}: {}", asked.text);
    }
    assert_eq!(shown(&server, &named)["customer_id"], Value::Null);
    fields.extend([("asked", "ada"), ("same_name", "1")]);
    let sold = panel.post(&path, &fields);
    assert_eq!(sold.status, 303, "{}", sold.text);
    assert_eq!(shown(&server, &named)["customer_id"], 1);
    let revoked = key_of(&server, "watch");
    server.json(&["license", "revoke", "--yes", &revoked]);
    let id = shown(&server, &revoked)["id"].to_string();
    assert!(!panel.get(&format!("/licenses/{id}")).text.contains("/sell"));
    let refused = panel.post(
        &format!("/licenses/{id}/sell"),
        &[("customer", "Ada"), ("plan", "later")],
    );
    assert!([409, 422].contains(&refused.status));
    assert_eq!(shown(&server, &revoked)["customer_id"], Value::Null);
}

#[test]
fn a_command_gives_a_trial_its_customer() {
    let server = started(&[], &[PLAN, OFFER, &["customer", "add", "Ada"]]);
    let key = key_of(&server, "laptop");
    server.json(&["license", "edit", &key, "--customer", "Ada"]);
    assert_eq!(shown(&server, &key)["customer"], "Ada");
    assert_eq!(
        trial(&server.client(), "laptop").body["license_key"],
        json!(key)
    );
}

/// The numbers in the table of trials by day.
fn numbers_of_trials(page: &str) -> Vec<String> {
    let rest = page.split("id=\"trials\"").nth(1).unwrap();
    let table = rest.split("</table>").next().unwrap();
    let cells = table.split("<td class=\"num\">").skip(1);
    cells
        .map(|cell| cell.split('<').next().unwrap().to_owned())
        .collect()
}

#[test]
fn without_a_choice_the_figures_show_the_trials_of_all_products() {
    let plan = [PLAN, &["--product", SECOND]].concat();
    let offer = ["config", "--product", SECOND, "set", "trial_plan=try"];
    let (server, [first, second]) = two_products(&[], &[&plan, &offer]);
    let mut panel = english(&server, "support");
    let nothing = panel.get("/figures").text;
    assert!(
        nothing.contains("No program has started a trial"),
        "the second product offers them: {nothing}"
    );
    let of_first = format!("/figures?product={FIRST}");
    let first_page = panel.get(&of_first).text;
    assert!(first_page.contains("id=\"versions\"") && !first_page.contains("id=\"trials\""));
    assert_eq!(trial(&second, "laptop").status, 201);
    server.json(&[PLAN, &["--product", FIRST]].concat());
    server.json(&["config", "--product", FIRST, "set", "trial_plan=try"]);
    for name in ["laptop", "desktop"] {
        eventually("a trial of the first product", || {
            [200, 201].contains(&trial(&first, name).status)
        });
    }
    let listed = server.json(&["license", "list", "--product", FIRST]);
    start_days_ago(&server, listed["licenses"][1]["id"].as_i64().unwrap(), 3);
    // Today one of each product, an earlier one of the first, and the sum.
    let of_second = format!("/figures?product={SECOND}");
    for (path, numbers) in [
        ("/figures", &["2", "0", "1", "0", "3", "0"][..]),
        (&of_first, &["1", "0", "1", "0", "2", "0"]),
        (&of_second, &["1", "0", "1", "0"]),
    ] {
        eventually(path, || numbers_of_trials(&panel.get(path).text) == numbers);
    }
}

#[test]
fn the_figures_show_trials_by_day_once_they_were_offered() {
    let server = started(&[], &[PLAN, &["customer", "add", "Ada"]]);
    let mut panel = english(&server, "support");
    assert!(
        !panel.get("/figures").text.contains("id=\"trials\""),
        "none was offered"
    );
    server.json(OFFER);
    let page = panel.get("/figures").text;
    assert!(
        page.contains("No program has started a trial in the last 30 days."),
        "{page}"
    );
    let keys = ["laptop", "desktop", "tablet"].map(|name| key_of(&server, name));
    server.json(&["license", "edit", &keys[0], "--customer", "Ada"]);
    start_days_ago(&server, shown(&server, &keys[1])["id"].as_i64().unwrap(), 2);
    start_days_ago(
        &server,
        shown(&server, &keys[2])["id"].as_i64().unwrap(),
        40,
    );
    eventually("the counts", || {
        // Today, the day before yesterday, and the sum; the one of 40 days ago is not in the table.
        numbers_of_trials(&panel.get("/figures").text) == ["1", "1", "1", "0", "2", "1"]
    });
    server.json(&["config", "set", "trial_plan="]);
    assert!(
        panel.get("/figures").text.contains("id=\"trials\""),
        "trials were offered once"
    );
}

#[test]
fn a_device_asks_on_the_page_integrate_for_its_trial_once_that_is_offered() {
    let server = started(&[], &[PLAN]);
    let mut panel = english(&server, "admin");
    for language in ["python", "javascript", "java", "csharp", "cpp"] {
        let path = format!("/integrate/program?language={language}");
        let offers = |panel: &mut Browser| panel.get(&path).text.contains("(empty for a trial)");
        server.json(&["config", "set", "trial_plan="]);
        eventually("the file offers no trial", || !offers(&mut panel));
        server.json(OFFER);
        eventually("the file offers a trial", || offers(&mut panel));
    }
}
