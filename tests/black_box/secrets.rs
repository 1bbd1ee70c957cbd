//! What must never be read by anybody else: keys and tokens.

use serde_json::json;

use crate::scene::{UNKNOWN, change, forms, started};
use crate::support::{beat, claim, eventually};
use crate::wire;

#[test]
fn the_loudest_log_and_the_answers_hold_no_key_and_no_token() {
    let mut server = started(&[("LOG__LEVEL", "trace")], &[]);
    let keys = server.licenses(1, 3);
    let old_api_key = server.api_key().to_owned();
    let client = server.client();
    let token = client.session(&keys[0], "laptop");
    let other = client.session(&keys[1], "laptop");
    let mut mistyped = keys[2].clone();
    mistyped.replace_range(0..1, if mistyped.starts_with('7') { "8" } else { "7" });
    let mut told = Vec::new();
    for key in [&keys[0], &keys[1], &mistyped, &UNKNOWN.to_owned()] {
        for deed in ["activate", "verify", "session/start", "deactivate"] {
            if deed != "deactivate" || key != &keys[0] {
                told.push(client.call(deed, &claim(key, "desktop")).text);
            }
        }
        for token in [&token, &other] {
            told.push(client.call("session/heartbeat", &beat(key, token)).text);
        }
        told.push(
            client
                .send(
                    "activate",
                    format!("{{\"license_key\":\"{key}\"").as_bytes(),
                    &[],
                )
                .text,
        );
        told.push(
            client
                .call(
                    "activate",
                    &json!({ "license_key": [key], "session_token": token }),
                )
                .text,
        );
        told.push(
            client
                .get(&format!("/api/license/version?version={key}"))
                .text,
        );
        told.push(client.get(&format!("/{key}/{token}")).text);
        told.push(
            client
                .with_key(&format!("{old_api_key}x"))
                .call("activate", &claim(key, "x"))
                .text,
        );
    }
    // What is no HTTP, with keys in it.
    for nonsense in [
        format!("{token} {old_api_key}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nx y: {}\r\n\r\n", keys[0]),
    ] {
        wire::ask(&mut wire::tls(&server), nonsense.as_bytes());
    }
    server.json(&["license", "suspend", &keys[1]]);
    eventually("403", || {
        client
            .call("session/heartbeat", &beat(&keys[1], &other))
            .status
            == 403
    });
    // A failure inside, too: the table is gone.
    change(&server, "alter table devices rename to gone");
    let failed = client.call("activate", &claim(&keys[2], "laptop"));
    assert_eq!((failed.status, failed.code()), (500, "internal"));
    told.push(failed.text);
    change(&server, "alter table gone rename to devices");
    told.push(client.call("session/end", &beat(&keys[0], &token)).text);
    let new_api_key = server.json(&["config", "rotate-api-key"])["api_key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(server.stop(), Some(0));
    let log = server.log();
    assert!(
        log.contains("TRACE") || log.contains("DEBUG"),
        "it is loud: {log}"
    );
    assert!(log.contains("devices"), "and tells of the failure: {log}");
    for secret in keys
        .iter()
        .chain([&token, &other, &mistyped, &old_api_key, &new_api_key])
    {
        for form in forms(secret) {
            assert!(!log.contains(&form), "the log holds {form}");
            for text in &told {
                assert!(!text.contains(&form), "an answer holds {form}: {text}");
            }
        }
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        told.iter()
            .all(|text| !text.contains("sqlite") && !text.contains("src/")),
        "{told:?}"
    );
}

#[test]
fn a_line_of_the_log_is_one_line_whatever_is_in_it() {
    let mut server = started(&[("LOG__LEVEL", "trace"), ("LOG__FORMAT", "json")], &[]);
    let key = server.license(1);
    let client = server.client();
    let mut body = claim(&key, "laptop");
    body["machine_id"] = json!("a\u{85}b\u{2028}forged 2026 ERROR");
    body["hardware_hash"] = json!("\u{1f}");
    client.call("activate", &body);
    client.get("/%0aforged");
    server.stop();
    for line in server.log().lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "{line}"
        );
    }
}
