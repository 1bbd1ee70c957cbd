//! The audit log: one entry for each change, and no secret in it.

use serde_json::{Value, json};

use crate::scene::{spellings, value};
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
        (&["license", "revoke", &key], "licenses.revoke"),
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
    let last = "select action || ' by ' || actor from audit_log order by audit_id desc limit 1";
    for (command, action) in commands {
        let count = value::<u32>(&server, "select count(*) from audit_log");
        let user = server
            .command(command)
            .env("USER", "grace")
            .output()
            .unwrap();
        assert!(user.status.success());
        assert_eq!(
            value::<String>(&server, last),
            format!("{action} by command line")
        );
        assert_eq!(
            value::<u32>(&server, "select count(*) from audit_log"),
            count + 1,
            "{action}"
        );
    }
    let by = "select count(*) from audit_log where source = 'grace'";
    assert_eq!(value::<isize>(&server, by), commands.len().cast_signed());
    let actions =
        "select group_concat(action) from (select action from audit_log order by audit_id limit 2)";
    assert_eq!(
        value::<String>(&server, actions),
        "customers.add,licenses.issue"
    );
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
        for (column, expected) in [("before", before), ("after", after)] {
            let text = value::<String>(
                &server,
                &format!("select {column} from audit_log where action = '{changed_by}'"),
            );
            let values: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(values[member], expected, "{changed_by} {column}");
        }
    }
    // A command that fails writes no entry.
    let count = value::<u32>(&server, "select count(*) from audit_log");
    server.cli(&["license", "reinstate", &key]);
    server.cli(&["config", "set", "session_timeout=1"]);
    assert_eq!(
        value::<u32>(&server, "select count(*) from audit_log"),
        count
    );
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
    let all = "select group_concat(subject || before || after || source) from audit_log";
    let text = value::<String>(&server, all);
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
    let conn = rusqlite::Connection::open(server.database()).unwrap();
    let change = |sql: &str| assert_eq!(conn.execute(sql, []).unwrap(), 1, "{sql}");
    change("update audit_log set actor = 'nobody' where audit_id = 2");
    assert!(audit()["detail"].as_str().unwrap().starts_with("entry 2 "));
    change("update audit_log set actor = 'command line' where audit_id = 2");
    assert_eq!(audit()["ok"], true);
    change("delete from audit_log where audit_id = 3");
    assert!(audit()["detail"].as_str().unwrap().starts_with("row 3 "));
}
