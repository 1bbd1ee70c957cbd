//! The tables of the manual, compared with the server: the codes with which calls are refused, and what answers contain.

use std::collections::{BTreeMap, BTreeSet};

use license_server::refusals;
use serde_json::{Value, json};

use super::pages::{LANGUAGES, text_of};
use crate::support::{Response, Server, heartbeat_body, identity};

/// The rows of the table whose first column has this name, by their cells.
fn table(text: &str, first_column: &str) -> Vec<Vec<String>> {
    let head = format!("| {first_column} |");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&head));
    assert!(lines.next().is_some(), "no table {first_column}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// What is between backticks.
fn code(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The status of each code in the manual.
fn statuses(language: &str) -> BTreeMap<String, u16> {
    let rows = table(&text_of("program", language), "Code");
    let rows = rows.iter();
    rows.map(|row| (row[0].trim_matches('`').to_owned(), row[1].parse().unwrap()))
        .collect()
}

#[test]
fn the_manual_lists_every_code_with_which_a_call_of_a_program_is_refused() {
    // What follows is about websites.
    let of_programs = refusals::CODES
        .iter()
        .take_while(|code| **code != "domain_not_licensed");
    let of_programs: BTreeSet<String> = of_programs.map(|code| (*code).to_owned()).collect();
    assert!(of_programs.len() > 15);
    for language in LANGUAGES {
        let listed: BTreeSet<String> = statuses(language).into_keys().collect();
        assert_eq!(listed, of_programs, "{language}");
    }
}

/// Calls that are refused, each with another code.
fn refused(server: &Server) -> Vec<Response> {
    let keys = server.issue_licenses(1, 3);
    let client = server.client();
    let token = client.session(&keys[0], "a");
    let mut answers = vec![
        client.call("session/start", &identity(&keys[0], "a")),
        client.call("activate", &identity(&keys[0], "b")),
        client.call("session/start", &identity(&keys[0], "b")),
        client.call("activate", &identity("AAAAA-AAAAA-AAAAA-AAAAA-AAAAA", "b")),
        client.call("activate", &json!({})),
        client.call("activate", &json!([])),
        client.call("activate", &json!({ "version": "x".repeat(17_000) })),
        client.call("trial", &identity(&keys[0], "a")),
        client.call(
            "session/heartbeat",
            &heartbeat_body(&keys[0], "0b0e7a54-9d0c-4e5f-8a6b-0123456789ab"),
        ),
    ];
    client.call("session/end", &json!({ "session_token": token }));
    answers.push(client.call("session/heartbeat", &heartbeat_body(&keys[0], &token)));
    server.json(&["license", "suspend", &keys[1]]);
    answers.push(client.call("activate", &identity(&keys[1], "a")));
    server.json(&[
        "config",
        "set",
        "--yes",
        "current_version=9.0.0",
        "minimum_version=9.0.0",
    ]);
    let too_old = || client.call("activate", &identity(&keys[2], "a"));
    crate::support::eventually("the server knows the new minimum", || {
        too_old().status >= 400
    });
    answers.push(too_old());
    answers
}

#[test]
fn a_refused_call_has_the_status_that_the_manual_says() {
    let server = Server::start();
    let answers = refused(&server);
    for language in LANGUAGES {
        let statuses = statuses(language);
        let mut seen = BTreeSet::new();
        for answer in &answers {
            let (status, code) = answer.status_and_code();
            assert_eq!(statuses.get(code), Some(&status), "{code}: {answer:?}");
            seen.insert(code);
        }
        assert!(seen.len() >= 11, "{seen:?}");
    }
}

fn members(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn answers_have_the_members_that_the_manual_says_and_no_others() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let activated = client.call("activate", &identity(&key, "a")).body;
    let started = client.call("session/start", &identity(&key, "a")).body;
    let token = started["session_token"].as_str().unwrap();
    let answers = [
        (
            "session/heartbeat",
            client
                .call("session/heartbeat", &heartbeat_body(&key, token))
                .body,
        ),
        ("verify", client.call("verify", &identity(&key, "a")).body),
        (
            "session/end",
            client
                .call("session/end", &json!({ "session_token": token }))
                .body,
        ),
        (
            "deactivate",
            client.call("deactivate", &identity(&key, "a")).body,
        ),
        ("activate", activated.clone()),
        ("session/start", started.clone()),
    ];
    for language in LANGUAGES {
        let text = text_of("program", language);
        let first = if *language == "de" { "Aufruf" } else { "Call" };
        let rows = table(&text, first);
        for (call, answer) in &answers {
            let row = rows
                .iter()
                .find(|row| row[0] == format!("`{call}`"))
                .unwrap();
            let listed = code(row[3].split(';').next().unwrap());
            let listed: BTreeSet<String> = listed
                .into_iter()
                .filter(|word| !["ok", "ended"].contains(&word.as_str()))
                .collect();
            assert_eq!(listed, members(answer), "{call}");
        }
        let of_license = members(&activated["license"]);
        for member in of_license {
            assert!(text.contains(&format!("`{member}`")), "{member}");
        }
    }
}
