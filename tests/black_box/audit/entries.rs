//! The audit log: one entry for each change, and no secret in it.

use serde_json::{Value, json};

use crate::database;
use crate::inspect::spellings;
use crate::support::Server;

#[test]
fn every_change_writes_an_entry_with_its_actor() {
    let server = Server::start();
    let key = server.issue_license(1);
    server.client().session(&key, "laptop");
    let commands: &[(&[&str], &str)] = &[
        (&["license", "suspend", &key], "licenses.suspend"),
        (&["license", "reinstate", &key], "licenses.reinstate"),
        (
            &["license", "extend", &key, "--until", "2099-01-01"],
            "licenses.extend",
        ),
        (
            &["license", "release-device", &key, "hash of laptop"],
            "devices.release",
        ),
        (&["license", "revoke", "--yes", &key], "licenses.revoke"),
        (&["release", "add", "1.0.0", "--notes", "x"], "releases.add"),
        (&["release", "yank", "1.0.0"], "releases.yank"),
        (
            &["config", "set", "session_timeout=90"],
            "client_config.set",
        ),
        (
            &["config", "rotate-api-key"],
            "client_config.rotate_api_key",
        ),
        (
            &["limit", "set", "site", "--per-minute", "1"],
            "client_config.set_limit",
        ),
        (&["flag", "set", "x"], "client_config.set_flag"),
        (&["flag", "remove", "x"], "client_config.remove_flag"),
    ];
    for (command, action) in commands {
        let count = database::count(&server, "audit_log");
        let user = server
            .command(command)
            .env("USER", "grace")
            .output()
            .unwrap();
        assert!(user.status.success());
        let entries = database::audit_log(&server);
        let last = entries.last().unwrap();
        assert_eq!(last.action, *action);
        assert_eq!(last.actor, "command line");
        assert_eq!(last.source, "grace");
        assert_eq!(entries.len(), count as usize + 1, "{action}");
    }
    let entries = database::audit_log(&server);
    let by_user = entries.iter().filter(|entry| entry.source == "grace");
    assert_eq!(by_user.count(), commands.len());
    assert_eq!(entries[0].action, "customers.add");
    assert_eq!(entries[1].action, "licenses.issue");
    for (changed_by, before, after) in [
        (
            "licenses.extend",
            json!(null),
            json!("2099-01-01T23:59:59Z"),
        ),
        ("client_config.set", json!(60), json!(90)),
    ] {
        let member = if changed_by == "licenses.extend" {
            "valid_until"
        } else {
            "session_timeout"
        };
        let entry = database::audited(&server, changed_by).remove(0);
        for (text, expected) in [(entry.before, before), (entry.after, after)] {
            let values: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(values[member], expected, "{changed_by} {text}");
        }
    }
    // A command that fails writes no entry.
    let count = database::count(&server, "audit_log");
    server.cli(&["license", "reinstate", &key]);
    server.cli(&["config", "set", "session_timeout=1"]);
    assert_eq!(database::count(&server, "audit_log"), count);
}

#[test]
fn the_audit_log_holds_no_secret() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    server.json(&["session", "end", "1"]);
    server.json(&["license", "suspend", &key]);
    server.json(&["config", "rotate-api-key"]);
    server.json(&["config", "set", "session_timeout=90"]);
    let text = format!("{:?}", database::audit_log(&server));
    for secret in [&key, &token, &server.api_key().to_owned()] {
        for form in spellings(secret) {
            assert!(!text.contains(&form), "{form} in {text}");
        }
    }
}

#[test]
fn an_altered_entry_and_a_removed_one_are_detected() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["customer", "add", "Bob"]);
    server.json(&["customer", "add", "Eve"]);
    let audit = || {
        let output = server.cli(&["--json", "check"]).stdout;
        let output: Value = serde_json::from_slice(&output).unwrap();
        let checks = output["checks"].as_array().unwrap().clone();
        checks
            .into_iter()
            .find(|check| check["name"] == "audit log")
            .unwrap()
    };
    assert_eq!(audit()["ok"], true);
    database::forge_actor(&server, 2, "nobody");
    assert!(audit()["detail"].as_str().unwrap().starts_with("entry 2 "));
    database::forge_actor(&server, 2, "command line");
    assert_eq!(audit()["ok"], true);
    database::remove_audit_entry(&server, 3);
    assert!(audit()["detail"].as_str().unwrap().starts_with("entry 3 "));
}
