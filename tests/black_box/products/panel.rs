//! The settings page: changes take effect for programs within a second, and every role sees what it may.

use serde_json::json;

use crate::browser::{Browser, field};
use crate::database;
use crate::support::{Server, eventually, identity};

/// The fields of the form for the client configuration, with default values except for `changed`.
fn client<'a>(seen: &'a str, changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let defaults = [
        ("part", "client"),
        ("seen", seen),
        ("client_name", "My program"),
        ("current_version", "1.0.0"),
        ("minimum_version", "0.0.0"),
        ("heartbeat_interval", "30"),
        ("session_timeout", "60"),
        ("session_policy", "reject"),
        ("offline_days", "0"),
    ];
    let mut fields = defaults.to_vec();
    for (name, value) in changed {
        fields.retain(|(known, _)| known != name);
        fields.push((name, value));
    }
    fields
}

/// The hidden field `seen` of the form for this `part` and, unless it is empty, this `name`.
fn seen(page: &str, part: &str, name: &str) -> String {
    let begin = format!("name=\"part\" value=\"{part}\">");
    let form = page.split(&begin).skip(1);
    let matching = form.filter(|form| {
        name.is_empty()
            || form.starts_with(&format!(
                "<input type=\"hidden\" name=\"name\" value=\"{name}\">"
            ))
    });
    field(matching.into_iter().next().unwrap(), "seen")
}

fn client_seen(panel: &mut Browser) -> String {
    seen(&panel.get("/config").text, "client", "")
}

#[test]
fn days_without_the_server_are_saved_and_programs_get_a_lease() {
    let server = Server::start();
    let device = identity(&server.issue_license(1), "laptop");
    let program = server.client();
    program.call("activate", &device);
    let mut panel = server.logged_in_browser("admin");
    let token = client_seen(&mut panel);
    let saved = panel.post("/config/update", &client(&token, &[("offline_days", "3")]));
    assert_eq!(saved.status, 303, "{saved:?}");
    eventually("a lease", || {
        program.call("verify", &device).body["lease"].is_string()
    });
    assert_eq!(server.json(&["config", "show"])["offline_days"], 3);
    // The consequences are explained beside the field.
    let page = panel.get("/config").text;
    assert!(page.contains("a license that you suspend"), "{page}");
    let read = server.logged_in_browser("support").get("/config").text;
    let words = read.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("Offline days</dt> <dd>3</dd>"), "{read}");
}

#[test]
fn a_new_minimum_version_refuses_the_next_start_of_an_older_program() {
    let server = Server::start();
    let key = server.issue_license(1);
    let program = server.client();
    program.call("activate", &identity(&key, "laptop"));
    let mut panel = server.logged_in_browser("admin");
    let token = client_seen(&mut panel);
    let changed = [("current_version", "2.0.0"), ("minimum_version", "1.5.0")];
    // First a question that counts the devices and carries what was typed.
    let asked = panel.post("/config/update", &client(&token, &changed));
    assert_eq!(asked.status, 200, "{asked:?}");
    for text in [
        "Refuse every version older than 1.5.0?",
        "1 device last ran an older version.",
        "name=\"current_version\" value=\"2.0.0\"",
        "name=\"confirmed_minimum\" value=\"1.5.0\"",
        "href=\"/lizenzserver/config\"",
    ] {
        assert!(asked.text.contains(text), "{text}: {}", asked.text);
    }
    assert_eq!(server.json(&["config", "show"])["minimum_version"], "0.0.0");
    // The answer counts for the version that the question named.
    let mut fields = client(&token, &changed);
    fields.push(("confirmed_minimum", "1.4.0"));
    assert_eq!(panel.post("/config/update", &fields).status, 200);
    let mut fields = client(&token, &changed);
    fields.push(("confirmed_minimum", "1.5.0"));
    let saved = panel.post("/config/update", &fields);
    assert_eq!(saved.status, 303, "{saved:?}");
    assert_eq!(
        saved.header("location"),
        Some("/lizenzserver/config?at=client#client"),
        "back to its part of the page"
    );
    let refused = program.call("session/start", &identity(&key, "laptop"));
    assert_eq!(refused.status_and_code(), (403, "version_too_old"));
    let page = panel.follow(&saved).text;
    assert!(
        page.contains("value=\"1.5.0\"") && page.contains("Saved."),
        "{page}"
    );
    assert!(!page.contains("even your newest program"));
    let token = seen(&page, "client", "");
    let ahead = [("current_version", "2.0.0"), ("minimum_version", "3.0.0")];
    let refused = panel.post("/config/update", &client(&token, &ahead));
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused
            .text
            .contains("Version 3.0.0 is newer than the current version 2.0.0")
            && refused.text.contains("value=\"3.0.0\""),
        "{refused:?}"
    );
    assert_eq!(server.json(&["config", "show"])["minimum_version"], "1.5.0");
}

#[test]
fn a_fault_of_one_part_stands_in_no_other() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    server.json(&["flag", "set", "beta", "--on"]);
    let page = panel.get("/config").text;
    let (limit_seen, flag_seen) = (seen(&page, "limit", "login"), seen(&page, "flag", "beta"));
    let limit = [
        ("part", "limit"),
        ("name", "login"),
        ("seen", &*limit_seen),
        ("per_minute", "x"),
        ("burst", "5"),
    ];
    let page = panel.post("/config/update", &limit);
    assert_eq!(page.status, 422);
    assert_eq!(page.text.matches("aria-invalid").count(), 1, "{page:?}");
    assert!(page.text.contains("id=\"e-limit:login-per_minute\""));
    let flag = [
        ("part", "flag"),
        ("name", "beta"),
        ("seen", &*flag_seen),
        ("description", "typed here"),
        ("share", "x"),
    ];
    let page = panel.post("/config/update", &flag);
    assert_eq!(page.status, 422);
    assert_eq!(page.text.matches("aria-invalid").count(), 1, "{page:?}");
    assert!(page.text.contains("id=\"e-flag:beta-share\""));
    assert_eq!(page.text.matches("typed here").count(), 1, "{page:?}");
}

#[test]
fn the_second_of_two_conflicting_changes_is_refused() {
    let server = Server::start();
    let (mut one, mut other) = (
        server.logged_in_browser("admin"),
        server.logged_in_browser("owner"),
    );
    let token = client_seen(&mut one);
    let quick = client(&token, &[("heartbeat_interval", "20")]);
    assert_eq!(other.post("/config/update", &quick).status, 303);
    let slow = client(&token, &[("heartbeat_interval", "10")]);
    let late = one.post("/config/update", &slow);
    assert_eq!(late.status, 422);
    assert!(
        late.text.contains("Someone else changed this"),
        "{}",
        late.text
    );
    assert!(late.text.contains("value=\"10\"") && late.text.contains("Saved meanwhile: 20"));
    assert_eq!(server.json(&["config", "show"])["heartbeat_interval"], 20);
    let token = seen(&late.text, "client", "");
    let again = client(&token, &[("heartbeat_interval", "10")]);
    assert_eq!(one.post("/config/update", &again).status, 303);
    // Changes of different parts do not conflict.
    let page = one.get("/config").text;
    let limit = seen(&page, "limit", "login");
    server.json(&["config", "set", "client_name=Other"]);
    let fields = [
        ("part", "limit"),
        ("name", "login"),
        ("seen", &*limit),
        ("per_minute", "20"),
        ("burst", "9"),
    ];
    assert_eq!(one.post("/config/update", &fields).status, 303);
    assert_eq!(
        one.post("/config/update", &fields).status,
        422,
        "the revision is outdated"
    );
}

#[test]
fn an_error_is_shown_beside_its_field_in_both_languages_and_the_input_is_kept() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let token = client_seen(&mut panel);
    let too_long = format!("<b>Kept</b>{}", "x".repeat(90));
    for (name, value, english, german) in [
        (
            "client_name",
            too_long.as_str(),
            "at most 100 characters",
            "mit höchstens 100 Zeichen",
        ),
        ("current_version", "1.0", "three numbers", "drei Zahlen"),
        ("minimum_version", "x", "three numbers", "drei Zahlen"),
        (
            "heartbeat_interval",
            "0",
            "from 1 to 3600",
            "von 1 bis 3600",
        ),
        (
            "session_timeout",
            "30",
            "longer than the heartbeat",
            "mehr als der Abstand",
        ),
        ("session_policy", "x", "one of the three", "eine der drei"),
        ("offline_days", "91", "from 0 to 90", "von 0 bis 90"),
        ("offline_days", "", "from 0 to 90", "von 0 bis 90"),
    ] {
        for (language, text) in [("en", english), ("de", german)] {
            panel.set_cookie("lang", language);
            let fields = client(&token, &[("client_name", "<b>Kept</b>"), (name, value)]);
            let response = panel.post("/config/update", &fields);
            assert_eq!(response.status, 422, "{name}");
            assert!(
                response.text.contains(&format!("href=\"#f-{name}\"")),
                "{name}: {}",
                response.text
            );
            assert!(
                response.text.contains(&format!("id=\"e-{name}\">")),
                "{name}"
            );
            assert!(response.text.contains(text), "{name}: {}", response.text);
            assert!(
                response.text.contains("value=\"&lt;b&gt;Kept&lt;/b&gt;"),
                "{name}"
            );
            assert_eq!(
                seen(&response.text, "client", ""),
                token,
                "the revision stays the same"
            );
        }
    }
    panel.set_cookie("lang", "en");
    for (fields, id, text) in [
        (
            vec![("part", "new_flag"), ("name", "a b"), ("share", "5")],
            "new_flag-name",
            "1 to 64 letters",
        ),
        (
            vec![("part", "new_flag"), ("name", "a"), ("share", "101")],
            "new_flag-share",
            "from 0 to 100",
        ),
        (
            vec![("part", "new_flag"), ("name", "a"), ("share", "300")],
            "new_flag-share",
            "from 0 to 100",
        ),
        (
            vec![
                ("part", "limit"),
                ("name", "login"),
                ("per_minute", "many"),
                ("burst", "1"),
            ],
            "limit:login-per_minute",
            "from 0 to 1000000",
        ),
    ] {
        let response = panel.post("/config/update", &fields);
        assert_eq!(response.status, 422, "{id}");
        assert!(
            response.text.contains(&format!("href=\"#f-{id}\"")),
            "{id}: {}",
            response.text
        );
        assert!(
            response
                .text
                .contains(&format!("id=\"e-{id}\">{}", "Please enter")),
            "{id}"
        );
        assert!(response.text.contains(text), "{id}");
        assert_eq!(response.text.matches("<details id=\"").count(), 2);
        assert_eq!(
            response.text.matches(" open><summary>").count(),
            1,
            "{id}: its part is open"
        );
    }
    assert_eq!(
        panel.post("/config/update", &[("part", "nothing")]).status,
        422
    );
}

#[test]
fn flags_are_added_changed_and_removed_and_programs_get_them_when_they_verify_and_start() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 30);
    let program = server.client();
    let mut panel = server.logged_in_browser("admin");
    assert!(panel.get("/config").text.contains("No flags yet"));
    let new = [
        ("part", "new_flag"),
        ("name", "half"),
        ("description", "<i>half</i>"),
        ("share", "50"),
        ("enabled", "1"),
    ];
    assert_eq!(panel.post("/config/update", &new).status, 303);
    let twice = panel.post("/config/update", &new);
    assert!(
        twice.status == 422
            && twice
                .text
                .contains("A feature flag with this name already exists")
    );
    let is_on = |key: &String| {
        let response = program.call("verify", &identity(key, "laptop"));
        response.body["feature_flags"]["half"].as_bool().unwrap()
    };
    let first: Vec<bool> = keys.iter().map(is_on).collect();
    let on = first.iter().filter(|on| **on).count();
    assert!((4..=26).contains(&on), "{on} of 30");
    let again: Vec<bool> = keys.iter().map(is_on).collect();
    assert_eq!(first, again, "stable");
    for (key, on) in keys.iter().zip(&first) {
        program.call("activate", &identity(key, "laptop"));
        let started = program.call("session/start", &identity(key, "laptop"));
        assert_eq!(
            started.body["feature_flags"],
            json!({ "half": on }),
            "the same as for verify"
        );
    }
    let page = panel.get("/config").text;
    assert!(page.contains("value=\"&lt;i&gt;half&lt;/i&gt;\"") && !page.contains("<i>half"));
    let token = seen(&page, "flag", "half");
    let change = [
        ("part", "flag"),
        ("name", "half"),
        ("seen", &*token),
        ("description", ""),
        ("share", "50"),
    ];
    assert_eq!(
        panel.post("/config/update", &change).status,
        303,
        "without the checkbox, the flag is off"
    );
    eventually("off for all", || keys.iter().map(is_on).all(|on| !on));
    assert_eq!(
        panel.post("/config/update", &change).status,
        422,
        "the revision is outdated"
    );
    let question = panel.get("/config/flags/half/remove");
    assert!(
        question.text.contains("Remove the flag half?"),
        "{}",
        question.text
    );
    assert_eq!(panel.post("/config/flags/half/remove", &[]).status, 303);
    eventually("gone", || {
        program.call("verify", &identity(&keys[0], "laptop")).body["feature_flags"] == json!({})
    });
    let unknown = program.call(
        "verify",
        &identity("00000-00000-00000-00000-00000", "laptop"),
    );
    assert_eq!(
        unknown.body.get("feature_flags"),
        None,
        "no license, no flags"
    );
    assert_eq!(panel.get("/config/flags/half/remove").status, 404);
}

#[test]
fn a_rotated_key_stays_valid_for_its_overlap_period() {
    let server = Server::start();
    let key = server.issue_license(1);
    let old = server.client();
    let mut panel = server.logged_in_browser("admin");
    let works = |client: &crate::support::Client| {
        client.call("verify", &identity(&key, "laptop")).status == 200
    };
    let rotate = |panel: &mut Browser, days: &str, confirm: &str| {
        let token = field(&panel.get("/config/key").text, "seen");
        let fields = [
            ("seen", &*token),
            ("overlap_days", days),
            ("confirm", confirm),
        ];
        panel.post("/config/key", &fields)
    };
    for (days, confirm, text) in [
        ("7", "my prog", "not the name of your product"),
        ("-1", "My program", "from 0 to 3650"),
        ("3651", "My program", "from 0 to 3650"),
    ] {
        let response = rotate(&mut panel, days, confirm);
        assert!(
            response.status == 422 && response.text.contains(text),
            "{days} {confirm}"
        );
    }
    let stale = field(&panel.get("/config/key").text, "seen");
    assert_eq!(rotate(&mut panel, "7", "My program").status, 303);
    let fields = [
        ("seen", &*stale),
        ("overlap_days", "7"),
        ("confirm", "My program"),
    ];
    assert_eq!(
        panel.post("/config/key", &fields).status,
        422,
        "the form rotates the key once"
    );
    let present = server.json(&["config", "show"])["api_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let page = panel.get("/config").text;
    assert!(
        page.contains(&format!("data-copy=\"{present}\"")),
        "the page has a button that copies the key"
    );
    assert!(page.contains("Keys that still work") && !page.contains(server.api_key()));
    let new = old.with_key(&present);
    eventually("both work", || works(&new) && works(&old));
    assert_eq!(rotate(&mut panel, "0", "My program").status, 303);
    eventually("neither works", || !works(&new) && !works(&old));
    assert!(!panel.get("/config").text.contains("Keys that still work"));
    // Without a recent re-authentication, the password is requested first.
    let token = field(&panel.get("/config/key").text, "seen");
    database::age_reauthentication(&server);
    let fields = [
        ("seen", &*token),
        ("overlap_days", "0"),
        ("confirm", "My program"),
    ];
    let present = server.json(&["config", "show"])["api_key"].clone();
    for response in [panel.get("/config/key"), panel.post("/config/key", &fields)] {
        let target = response.header("location").unwrap_or_default();
        assert!(
            response.status == 303 && target.contains("prove"),
            "{response:?}"
        );
    }
    assert_eq!(server.json(&["config", "show"])["api_key"], present);
}

#[test]
fn support_sees_the_settings_but_neither_the_key_nor_a_form() {
    let server = Server::start();
    let mut support = server.logged_in_browser("support");
    let page = support.get("/config");
    assert_eq!(page.status, 200);
    assert!(!page.text.contains(server.api_key()) && !page.text.contains("lsk_"));
    assert!(!page.text.contains("/config/update") && page.text.contains("My program"));
    for path in [
        "/config/key",
        "/config/client/new",
        "/config/flags/x/remove",
    ] {
        assert_eq!(support.get(path).status, 403, "{path}");
        assert_eq!(
            support.post(path, &[]).status,
            if path.contains("client") { 503 } else { 403 },
            "{path}"
        );
    }
    let response = support.post("/config/update", &client("", &[("client_name", "Mine")]));
    assert_eq!(response.status, 403);
    assert_eq!(
        server.json(&["config", "show"])["client_name"],
        "My program"
    );
}

#[test]
fn the_monitor_shows_the_number_of_sessions_and_the_newest_five_and_supports_etags() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("support");
    assert!(panel.get("/config").text.contains("No program is running"));
    let keys = server.issue_licenses(1, 7);
    let program = server.client();
    for (number, key) in keys.iter().enumerate() {
        program.session(key, &format!("desk-{number}<b>"));
    }
    let page = panel.get("/config").text;
    assert!(page.contains("data-live=\"/lizenzserver/config?part=monitor\" data-every=\"30\""));
    assert!(page.contains("href=\"/lizenzserver/sessions\">Show all"));
    panel
        .headers
        .push(("X-Fragment".to_owned(), "1".to_owned()));
    let part = panel.get("/config?part=monitor");
    assert!(part.text.contains("7 sessions") && !part.text.contains("<!doctype"));
    for number in 0..7 {
        let shown = part.text.contains(&format!("desk-{number}&lt;b&gt;"));
        assert_eq!(shown, number >= 2, "the newest five: {number}");
    }
    let tag = part.header("etag").unwrap().to_owned();
    panel.headers.push(("If-None-Match".to_owned(), tag));
    assert_eq!(panel.get("/config?part=monitor").status, 304);
}

#[test]
fn the_first_configuration_is_offered_until_an_administrator_has_reviewed_it() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let page = panel.get("/config/client/new");
    assert!(
        page.status == 200 && page.text.contains("Step 2 of 3"),
        "{}",
        page.text
    );
    assert!(
        page.text.contains("href=\"/lizenzserver/setup/license\""),
        "it can be skipped"
    );
    let token = field(&page.text, "seen");
    let typed = |version| {
        [
            ("part", "first"),
            ("seen", &*token),
            ("client_name", "Größe <3>"),
            ("current_version", version),
            ("minimum_version", "1.0.0"),
        ]
    };
    let response = panel.post("/config/update", &typed("one"));
    assert!(
        response.status == 422 && response.text.contains("Step 2 of 3"),
        "{}",
        response.text
    );
    assert!(
        response.text.contains("Größe &lt;3&gt;")
            && response.text.contains("id=\"e-current_version\"")
    );
    let saved = panel.post("/config/update", &typed("1.2.0"));
    assert_eq!(
        saved.header("location"),
        Some("/lizenzserver/setup/license")
    );
    let looked = panel.get("/config/client/new");
    assert_eq!(
        (looked.status, looked.header("location")),
        (303, Some("/lizenzserver/config"))
    );
    let config = server.json(&["config", "show"]);
    assert_eq!(
        (
            &config["client_name"],
            &config["current_version"],
            &config["heartbeat_interval"]
        ),
        (&json!("Größe <3>"), &json!("1.2.0"), &json!(30))
    );
    // A command counts as a review, too.
    let other = Server::start();
    other.json(&["config", "set", "heartbeat_interval=20"]);
    assert_eq!(
        other
            .logged_in_browser("admin")
            .get("/config/client/new")
            .status,
        303
    );
}
