//! Limits for one license: starts, activations, and rows of history.

use serde_json::Value;

use crate::database;
use crate::inspect::ended;
use crate::setup::{MANY_STARTS, started};
use crate::support::{Client, Server, eventually, heartbeat_body, identity, rounds};

/// Starts and ends a session; its token, or the status of a refused start.
fn start_and_end(client: &Client, key: &str) -> Result<String, u16> {
    let started = client.call("session/start", &identity(key, "laptop"));
    if started.status != 201 {
        return Err(started.status);
    }
    let token = started.token();
    assert_eq!(
        client
            .call("session/end", &heartbeat_body(key, &token))
            .status,
        200
    );
    Ok(token)
}

#[test]
fn a_license_may_start_120_sessions_at_once_and_then_one_every_six_seconds() {
    let server = Server::start();
    let keys = server.issue_licenses(1, 2);
    let client = server.client();
    for key in &keys {
        assert_eq!(
            client.call("activate", &identity(key, "laptop")).status,
            201
        );
    }
    let tokens = (0..130).map_while(|_| start_and_end(&client, &keys[0]).ok());
    let accepted = tokens.count();
    // The quota refills by one start every six seconds.
    assert!((120..130).contains(&accepted), "{accepted}");
    let refused = client.call("session/start", &identity(&keys[0], "laptop"));
    assert_eq!(refused.status_and_code(), (429, "rate_limited"));
    let wait = refused.body["retry_after"].as_u64().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    assert_eq!(
        refused.header("retry-after"),
        Some(wait.to_string().as_str())
    );
    // Other licenses are not affected, nor are other requests of this license.
    assert!(start_and_end(&client, &keys[1]).is_ok());
    let verification = client.call("verify", &identity(&keys[0], "laptop"));
    assert_eq!(verification.body["valid"], true);
}

#[test]
fn a_license_cannot_take_slots_in_a_loop() {
    let settings = [
        ("SESSIONS__STARTS_PER_MINUTE", "1"),
        ("SESSIONS__STARTS_BURST", "5"),
    ];
    let server = started(&settings, &[]);
    let (small, large) = (server.issue_license(1), server.issue_license(20));
    let client = server.client();
    let statuses: Vec<u16> = (0..8)
        .map(|number| {
            let body = identity(&small, &format!("device {number}"));
            let status = client.call("activate", &body).status;
            client.call("deactivate", &body);
            status
        })
        .collect();
    assert_eq!(statuses, [201, 201, 201, 201, 201, 429, 429, 429]);
    // A license for many devices may activate them all in one morning.
    for number in 0..20 {
        let body = identity(&large, &format!("device {number}"));
        assert_eq!(client.call("activate", &body).status, 201, "{number}");
        assert_eq!(client.call("activate", &body).status, 200, "{number}");
    }
}

/// Moves all ended sessions a day and a few hours into the past; no server may be running.
fn age_history(server: &Server) {
    database::age_history(server, 100_000_000);
}

/// How many sessions a row of the history counts.
fn sessions(row: &Value) -> u64 {
    row["sessions"].as_u64().unwrap()
}

#[test]
fn of_a_day_with_very_many_sessions_the_first_the_last_and_the_count_are_kept() {
    let settings = [
        MANY_STARTS,
        ("SESSIONS__HISTORY_PER_DAY", "10"),
        ("SESSIONS__CLEANUP_INTERVAL", "1"),
    ];
    let mut server = started(&settings, &[]);
    let keys = server.issue_licenses(1, 2);
    let client = server.client();
    for key in &keys {
        assert_eq!(
            client.call("activate", &identity(key, "laptop")).status,
            201
        );
    }
    let tokens: Vec<String> = (0..60)
        .map(|_| start_and_end(&client, &keys[0]).unwrap())
        .collect();
    let few: Vec<String> = (0..8)
        .map(|_| start_and_end(&client, &keys[1]).unwrap())
        .collect();
    // Before the history is folded, every program still learns how its session ended.
    for token in &tokens {
        let heartbeat = client.call("session/heartbeat", &heartbeat_body(&keys[0], token));
        assert_eq!(heartbeat.status_and_code(), (410, "session_ended"));
    }
    assert_eq!(server.stop(), Some(0));
    age_history(&server);
    server.run();
    let client = server.client();
    let rows_of = |key: &str| -> Vec<Value> {
        let rows = ended(&server).into_iter();
        rows.filter(|row| row["license_key"] == key).collect()
    };
    // If the test runs over midnight, two days have this many.
    eventually("the history is folded", || {
        rows_of(&keys[0]).len() <= 2 * 11
    });
    let rows = rows_of(&keys[0]);
    assert_eq!(rows.iter().map(sessions).sum::<u64>(), 60, "{rows:?}");
    assert!(
        rows.iter().take(5).all(|row| sessions(row) == 1),
        "the last"
    );
    let first = rows.iter().rev().take(5);
    assert!(first.into_iter().all(|row| sessions(row) == 1), "the first");
    let folded = rows.iter().find(|row| sessions(row) > 1).unwrap();
    assert!(folded["started_at"].as_str() <= folded["ended_at"].as_str());
    assert_eq!(
        rows_of(&keys[1]).len(),
        few.len(),
        "the other license is unchanged"
    );
    // After folding, the program of the last session still learns how it ended.
    let last = heartbeat_body(&keys[0], &tokens[59]);
    let heartbeat = client.call("session/heartbeat", &last);
    assert_eq!(heartbeat.status_and_code(), (410, "session_ended"));
    assert_eq!(client.call("session/end", &last).status, 200);
    // The count is shown wherever the row is shown.
    let count = sessions(folded);
    let mut panel = server.logged_in_browser("support");
    let page = panel.get("/sessions/history?span=all").text;
    let words = format!("{count} sessions of this day in one row");
    assert!(page.contains(&words), "{page}");
    let csv = panel.get("/sessions/history.csv?span=all").text;
    assert!(csv.lines().next().unwrap().contains("sessions"), "{csv}");
    let cell = format!(",normal,{count}");
    assert!(
        csv.lines().any(|line| line
            .replace('"', "")
            .trim_end()
            .replace(';', ",")
            .ends_with(&cell)),
        "{csv}"
    );
    let license = database::first_license(&server);
    let page = panel.get(&format!("/licenses/{license}")).text;
    assert!(page.contains(&words), "{page}");
    let table = server.cli(&["session", "history", "--hours", "48"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.lines().next().unwrap().ends_with("SESSIONS"),
        "{table}"
    );
}

#[test]
fn a_loop_of_starts_and_ends_takes_the_same_space_every_day_however_many_there_are() {
    let settings = [
        MANY_STARTS,
        ("SESSIONS__HISTORY_PER_DAY", "10"),
        ("SESSIONS__CLEANUP_INTERVAL", "1"),
    ];
    let mut server = started(&settings, &[]);
    let key = server.issue_license(1);
    let body = identity(&key, "laptop");
    assert_eq!(server.client().call("activate", &body).status, 201);
    let (sessions_a_day, mut sizes) = (60 * rounds(1), Vec::new());
    for day in 1..=3 {
        let client = server.client();
        for _ in 0..sessions_a_day {
            start_and_end(&client, &key).unwrap();
        }
        assert_eq!(server.stop(), Some(0));
        age_history(&server);
        server.run();
        // If the test runs over midnight, two days have this many.
        eventually("the history is folded", || {
            database::count(&server, "session_history") <= day * 2 * 11
        });
        assert_eq!(server.stop(), Some(0));
        sizes.push(std::fs::metadata(server.database()).unwrap().len());
        server.run();
    }
    println!("{sessions_a_day} sessions a day, bytes of the database: {sizes:?}");
    // Pages that folding has freed are used again.
    assert!(sizes[2] < sizes[0] + (64 << 10), "{sizes:?}");
}

#[test]
fn license_show_says_that_there_are_more_ended_sessions_than_it_lists() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let body = identity(&key, "laptop");
    assert_eq!(client.call("activate", &body).status, 201);
    for (count, truncated) in [(10, false), (11, true)] {
        while ended(&server).len() < count {
            start_and_end(&client, &key).unwrap();
        }
        let shown = server.json(&["license", "show", &key]);
        assert_eq!(shown["history"].as_array().map(Vec::len), Some(10));
        assert_eq!(shown["history_truncated"] == true, truncated, "{shown}");
        let text = server.cli(&["license", "show", &key]).stdout;
        let text = String::from_utf8(text).unwrap();
        let rest = format!("session history --license {key}");
        assert_eq!(text.contains(&rest), truncated, "{text}");
    }
}
