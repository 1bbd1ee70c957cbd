//! `license edit` and `license show`: what a date means, what is cleared, and what is no change.

use serde_json::{Value, json};

use crate::browser::field;
use crate::database;
use crate::plans::commands::{issue, key_of, shop};

#[test]
fn a_term_that_has_not_begun_is_cleared_by_never_expires() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    assert_eq!(license["term_days_from_first_activation"], 365);
    let words = ["license", "edit", key_of(&license), "--valid-until", ""];
    let edited = server.json(&words)["licenses"][0].clone();
    assert_eq!(edited["term_days_from_first_activation"], Value::Null);
    assert_eq!(edited["valid_until"], Value::Null);
}

#[test]
fn a_day_is_its_last_second_for_a_command_and_unchanged_in_the_form_that_showed_it() {
    let server = shop();
    let noon = "2090-06-15T12:00:00Z";
    let dates = ["--valid-until", noon, "--updates-until", noon];
    let license = issue(&server, &dates);
    let key = key_of(&license);
    // The form sends back the days that it shows.
    let mut panel = server.logged_in_browser("admin");
    let page = panel.get("/licenses/1/edit").text;
    assert!(page.contains("value=\"2090-06-15\""), "{page}");
    let seen = field(&page, "seen");
    let from = license["valid_from"].as_str().unwrap().get(..10).unwrap();
    let fields = [
        ("customer", "Ada"),
        ("plan", ""),
        ("kind", "full"),
        ("devices", "2"),
        ("valid_from", from),
        ("valid_until", "2090-06-15"),
        ("features", ""),
        ("updates_until", "2090-06-15"),
        ("note", ""),
        ("seen", &seen),
    ];
    let saved = panel.post("/licenses/1/edit", &fields);
    assert_eq!(saved.status, 303, "{}", saved.text);
    let shown = server.json(&["license", "show", key]);
    assert_eq!(shown["device_limit"], 2);
    for date in ["valid_from", "valid_until", "updates_until"] {
        assert_eq!(shown[date], license[date], "{date}");
    }
    // A command names the day itself, as `license extend --until` does.
    let day = "2090-06-15";
    let words = [
        "license",
        "edit",
        key,
        "--valid-until",
        day,
        "--updates-until",
        day,
    ];
    let edited = server.json(&words)["licenses"][0].clone();
    assert_eq!(edited["valid_until"], "2090-06-15T23:59:59Z");
    assert_eq!(edited["updates_until"], "2090-06-15T23:59:59Z");
}

#[test]
fn a_sold_license_keeps_a_customer() {
    let server = shop();
    let license = issue(&server, &[]);
    let mut panel = server.logged_in_browser("admin");
    let seen = field(&panel.get("/licenses/1/edit").text, "seen");
    let fields = [
        ("customer", ""),
        ("kind", "full"),
        ("devices", "1"),
        ("valid_from", "2026-01-01"),
        ("valid_until", ""),
        ("note", ""),
        ("seen", &seen),
    ];
    let refused = panel.post("/licenses/1/edit", &fields);
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("href=\"#f-customer\""));
    for arguments in [&[][..], &["--customer", ""], &["--customer", " "]] {
        let words = [&["license", "edit", key_of(&license)], arguments].concat();
        let output = server.cli(&words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
    }
    assert_eq!(database::audited(&server, "licenses.edit").len(), 0);
}

#[test]
fn a_pending_term_is_shown_in_a_sentence_of_its_own() {
    let server = shop();
    let license = issue(&server, &["--plan", "pro"]);
    let from = license["valid_from"].as_str().unwrap();
    let text_of = |key: &str| {
        let output = server.cli(&["license", "show", key]).stdout;
        String::from_utf8(output).unwrap()
    };
    let text = text_of(key_of(&license));
    let expected = format!("from {from}, for 365 days that start with the first activation");
    assert!(text.contains(&expected), "{text}");
    let endless = issue(&server, &[]);
    let text = text_of(key_of(&endless));
    assert!(text.contains("without an end"), "{text}");
    let ending = issue(&server, &["--valid-until", "2090-12-31"]);
    let text = text_of(key_of(&ending));
    assert!(text.contains(" to 2090-12-31T23:59:59Z"), "{text}");
    assert_eq!(ending["valid_until"], json!("2090-12-31T23:59:59Z"));
}
