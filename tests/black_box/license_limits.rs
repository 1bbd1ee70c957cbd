//! What one license may leave in the file.

use rusqlite::Connection;
use serde_json::Value;

use crate::scene::{MANY_STARTS, ended, started, value};
use crate::support::{Client, Server, beat, claim, eventually};

/// Starts a session and ends it; the token, where the start was let in.
fn start_and_end(client: &Client, key: &str) -> Result<String, u16> {
    let started = client.call("session/start", &claim(key, "laptop"));
    if started.status != 201 {
        return Err(started.status);
    }
    let token = started.token();
    assert_eq!(client.call("session/end", &beat(key, &token)).status, 200);
    Ok(token)
}

#[test]
fn a_license_starts_120_sessions_at_once_and_then_as_many_as_come_back() {
    let server = Server::start();
    let keys = server.licenses(1, 2);
    let client = server.client();
    for key in &keys {
        assert_eq!(client.call("activate", &claim(key, "laptop")).status, 201);
    }
    let begun = (0..130).map_while(|_| start_and_end(&client, &keys[0]).ok());
    let begun = begun.count();
    // One comes back every six seconds.
    assert!((120..130).contains(&begun), "{begun}");
    let refused = client.call("session/start", &claim(&keys[0], "laptop"));
    assert_eq!(refused.told(), (429, "rate_limited"));
    let wait = refused.body["retry_after"].as_u64().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    assert_eq!(
        refused.header("retry-after"),
        Some(wait.to_string().as_str())
    );
    // It costs nobody else anything, and the license nothing but starts.
    assert!(start_and_end(&client, &keys[1]).is_ok());
    let verdict = client.call("verify", &claim(&keys[0], "laptop"));
    assert_eq!(verdict.body["valid"], true);
}

#[test]
fn a_license_takes_no_slots_in_a_loop() {
    let bounds = [
        ("SESSIONS__STARTS_PER_MINUTE", "1"),
        ("SESSIONS__STARTS_BURST", "5"),
    ];
    let server = started(&bounds, &[]);
    let (small, large) = (server.license(1), server.license(20));
    let client = server.client();
    let told: Vec<u16> = (0..8)
        .map(|number| {
            let body = claim(&small, &format!("device {number}"));
            let told = client.call("activate", &body).status;
            client.call("deactivate", &body);
            told
        })
        .collect();
    assert_eq!(told, [201, 201, 201, 201, 201, 429, 429, 429]);
    // A large license is rolled out on one morning.
    for number in 0..20 {
        let body = claim(&large, &format!("device {number}"));
        assert_eq!(client.call("activate", &body).status, 201, "{number}");
        assert_eq!(client.call("activate", &body).status, 200, "{number}");
    }
}

/// Every session that ended did so a day and a few hours earlier, while no server runs.
fn age_history(server: &Server) {
    let file = Connection::open(server.database()).unwrap();
    let sql = "update session_history set started_at_ms = started_at_ms - 100000000,
               last_heartbeat_at_ms = last_heartbeat_at_ms - 100000000, ended_at_ms = ended_at_ms - 100000000";
    file.execute_batch(sql).unwrap();
}

/// How many sessions a row of the history stands for.
fn sessions(row: &Value) -> u64 {
    row["sessions"].as_u64().unwrap()
}

#[test]
fn of_a_day_with_very_many_sessions_the_first_the_last_and_the_number_are_kept() {
    let bounds = [
        MANY_STARTS,
        ("SESSIONS__HISTORY_PER_DAY", "10"),
        ("SESSIONS__CLEANUP_INTERVAL", "1"),
    ];
    let mut server = started(&bounds, &[]);
    let keys = server.licenses(1, 2);
    let client = server.client();
    for key in &keys {
        assert_eq!(client.call("activate", &claim(key, "laptop")).status, 201);
    }
    let tokens: Vec<String> = (0..60)
        .map(|_| start_and_end(&client, &keys[0]).unwrap())
        .collect();
    let quiet: Vec<String> = (0..8)
        .map(|_| start_and_end(&client, &keys[1]).unwrap())
        .collect();
    // A program that has just ended is told how, whichever it is.
    for token in &tokens {
        let told = client.call("session/heartbeat", &beat(&keys[0], token));
        assert_eq!(told.told(), (410, "session_ended"));
    }
    assert_eq!(server.stop(), Some(0));
    age_history(&server);
    server.run();
    let client = server.client();
    let of = |key: &str| -> Vec<Value> {
        let rows = ended(&server).into_iter();
        rows.filter(|row| row["license_key"] == key).collect()
    };
    // Where midnight falls into the test, two days have as many.
    eventually("few rows", || of(&keys[0]).len() <= 2 * 11);
    let rows = of(&keys[0]);
    assert_eq!(rows.iter().map(sessions).sum::<u64>(), 60, "{rows:?}");
    assert!(
        rows.iter().take(5).all(|row| sessions(row) == 1),
        "the last"
    );
    let first = rows.iter().rev().take(5);
    assert!(first.into_iter().all(|row| sessions(row) == 1), "the first");
    let folded = rows.iter().find(|row| sessions(row) > 1).unwrap();
    assert!(folded["started_at"].as_str() <= folded["ended_at"].as_str());
    assert_eq!(of(&keys[1]).len(), quiet.len(), "others are left alone");
    // The program that has just ended is told how, whatever was folded.
    let last = beat(&keys[0], &tokens[59]);
    let told = client.call("session/heartbeat", &last);
    assert_eq!(told.told(), (410, "session_ended"));
    assert_eq!(client.call("session/end", &last).status, 200);
    // People see the number wherever they see the row.
    let number = sessions(folded);
    let mut panel = server.panel("support");
    let page = panel.get("/sessions/history?span=all").text;
    let words = format!("{number} sessions of this day in one row");
    assert!(page.contains(&words), "{page}");
    let sheet = panel.get("/sessions/history.csv?span=all").text;
    assert!(
        sheet.lines().next().unwrap().contains("sessions"),
        "{sheet}"
    );
    let cell = format!(",normal,{number}");
    assert!(
        sheet.lines().any(|line| line
            .replace('"', "")
            .trim_end()
            .replace(';', ",")
            .ends_with(&cell)),
        "{sheet}"
    );
    let license: i64 = value(&server, "select min(license_id) from licenses");
    let page = panel.get(&format!("/licenses/{license}")).text;
    assert!(page.contains(&words), "{page}");
    let table = server.cli(&["session", "history", "--hours", "48"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.lines().next().unwrap().ends_with("SESSIONS"),
        "{table}"
    );
}
