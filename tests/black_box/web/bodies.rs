//! JSON bodies of the client API: what is accepted, what is refused, and the limits.

use serde_json::{Value, json};

use crate::setup::{AUTO_ACTIVATE, UNKNOWN, started};
use crate::support::{Server, heartbeat_body, identity};
use crate::wire;

#[test]
fn ambiguous_json_is_refused() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let start = identity(&key, "laptop").to_string();
    let fields = start.trim_matches(['{', '}']);
    let with = |member: &str| format!("{{{fields},{member}}}");
    let nested = |levels: usize| {
        with(&format!(
            "\"x\":{}1{}",
            "[".repeat(levels),
            "]".repeat(levels)
        ))
    };
    let malformed = [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"text\"".to_owned(),
        "7".to_owned(),
        format!("[{start}]"),
        format!("{start}{start}"),
        format!("{start} x"),
        format!("\u{feff}\u{feff}{start}"),
        start[..start.len() - 1].to_owned(),
        with(&format!("\"license_key\":\"{key}\"")),
        with("\"x\":{\"y\":1,\"y\":1}"),
        with("\"x\":\"\\ud800\""),
        with("\"x\":\"\\udc00\\ud800\""),
        with("\"x\":NaN"),
        with("\"x\":1e999"),
        with("\"x\":\"a\nb\""),
        with("\"x\":'a'"),
        nested(16),
        nested(5000),
    ];
    for body in &malformed {
        let response = client.send("activate", body.as_bytes(), &[]);
        assert_eq!(
            response.status_and_code(),
            (400, "malformed_json"),
            "{}",
            body.get(..200).unwrap_or(body)
        );
    }
    for bytes in [b"\xff".as_slice(), b"\xed\xa0\x80", b"\xc0\xaf", b"\0"] {
        let body = [b"{\"x\":\"".as_slice(), bytes, b"\"}"].concat();
        assert_eq!(
            client.send("activate", &body, &[]).status_and_code(),
            (400, "malformed_json"),
            "{bytes:?}"
        );
    }
    for body in [
        nested(15),
        with("\"x\":\"\\ud83d\\ude00\""),
        format!(" \n{start}\t"),
    ] {
        let response = client.send(
            "activate",
            body.as_bytes(),
            &[("Content-Type", "Application/JSON; charset=utf-8")],
        );
        assert!(
            response.status < 300,
            "unknown fields are ignored: {response:?}"
        );
    }
}

#[test]
fn a_body_has_at_most_16_kib() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(1);
    let client = server.client();
    let padded = |length: usize| {
        let body = identity(&key, "laptop").to_string();
        let spaces = " ".repeat(length - body.len());
        format!("{body}{spaces}")
    };
    assert_eq!(
        client
            .send("activate", padded(16 * 1024).as_bytes(), &[])
            .status,
        201
    );
    for length in [16 * 1024 + 1, 100_000, 1_000_000] {
        let response = client.send("activate", padded(length).as_bytes(), &[]);
        assert_eq!(
            response.status_and_code(),
            (413, "payload_too_large"),
            "{length}"
        );
    }
    // Announced in the header, but never sent.
    let mut tls = wire::tls(&server);
    let response = wire::exchange(
        &mut tls,
        &wire::post(&server, "/api/license/activate", 1 << 40, "{"),
    )
    .unwrap();
    assert!(
        response.status == 413 && response.has_security_headers(),
        "{response:?}"
    );
    assert!(
        wire::closes(&mut tls),
        "nothing else can follow on this connection"
    );
    // In chunks, without an announced length.
    let head = wire::post(&server, "/api/license/activate", 0, "");
    let head = String::from_utf8(head)
        .unwrap()
        .replace("content-length: 0", "transfer-encoding: chunked");
    let mut request = head.into_bytes();
    for chunk in padded(20_000).as_bytes().chunks(1000) {
        request.extend(
            format!("{:x}\r\n", chunk.len())
                .bytes()
                .chain(chunk.iter().copied()),
        );
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let mut tls = wire::tls(&server);
    let response = wire::exchange(&mut tls, &request);
    let response = response.unwrap_or_else(|| panic!("no answer: {}", server.log()));
    assert_eq!(response.status, 413);
    let complete = identity(&key, "laptop").to_string();
    let next = wire::post(&server, "/api/license/activate", complete.len(), &complete);
    assert_eq!(
        wire::exchange(&mut tls, &next).unwrap().status,
        200,
        "the connection can still be used"
    );
}

/// Invalid values of a text field.
fn invalid_texts() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!(7),
        json!(true),
        json!(["x"]),
        json!({ "x": "y" }),
        json!("a\u{0}b"),
        json!("a\nb"),
        json!("\u{1f}"),
        json!("\u{7f}"),
    ]
}

#[test]
fn an_invalid_field_is_named() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let complete = identity(&key, "laptop");
    let leave = json!({ "license_key": key, "hardware_hash": "hash of laptop" });
    for (endpoint, body) in [
        ("activate", &complete),
        ("verify", &complete),
        ("session/start", &complete),
        ("deactivate", &leave),
        ("session/heartbeat", &heartbeat_body(&key, &token)),
        ("session/end", &json!({ "session_token": token })),
    ] {
        for field in body.as_object().unwrap().keys() {
            let mut without = body.clone();
            without.as_object_mut().unwrap().remove(field);
            // Line breaks in a license key are ignored.
            let is_invalid = |wrong: &Value| field != "license_key" || *wrong != json!("a\nb");
            let replaced = invalid_texts().into_iter().filter(is_invalid).map(|wrong| {
                let mut body = body.clone();
                body[field] = wrong;
                body
            });
            for wrong in replaced.chain([without]) {
                let response = client.call(endpoint, &wrong);
                assert_eq!(
                    response.status_and_code(),
                    (422, "invalid_field"),
                    "{endpoint} {wrong}"
                );
                assert_eq!(response.body["field"], field.as_str(), "{endpoint} {wrong}");
            }
        }
    }
    assert_eq!(
        client
            .call("session/heartbeat", &heartbeat_body(&key, &token))
            .status,
        200
    );
}

#[test]
fn lengths_are_counted_in_characters() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(20);
    let client = server.client();
    for (field, text, status) in [
        ("machine_id", "ä".repeat(255), 201),
        ("machine_id", "ä".repeat(256), 422),
        ("machine_id", "😀".repeat(255), 201),
        ("machine_id", "😀".repeat(256), 422),
        ("machine_id", "\u{80}\u{200e} x".to_owned(), 201),
        ("hardware_hash", "ß".repeat(255), 201),
        ("hardware_hash", "ß".repeat(256), 422),
        ("license_key", "0".repeat(64), 404),
        ("license_key", "0".repeat(65), 422),
        ("license_key", "Ö".repeat(64), 404),
        ("license_key", "Ö".repeat(65), 422),
        ("version", "99999.99999.99999999".to_owned(), 201),
        ("version", "99999.99999.999999999".to_owned(), 422),
        ("version", "1.0".to_owned(), 422),
        ("version", "1.0.0.0".to_owned(), 422),
        ("version", "v1.0.0".to_owned(), 422),
        ("version", "1.0.0-beta".to_owned(), 422),
        ("version", " 1.0.0".to_owned(), 422),
        ("version", "1.0.x".to_owned(), 422),
    ] {
        let mut body = identity(&key, &format!("{field} {text:.9}"));
        body[field] = json!(text);
        let response = client.call("activate", &body);
        assert_eq!(response.status, status, "{field}: {response:?}");
        assert!(
            status != 422 || response.body["field"] == field,
            "{response:?}"
        );
    }
    let shown = server.json(&["license", "show", &key]);
    let names: Vec<&str> = shown["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["machine_id"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"ä".repeat(255).as_str()),
        "stored completely"
    );
}

#[test]
fn a_license_key_is_accepted_as_people_type_it() {
    let server = Server::start();
    let client = server.client();
    // Until a key contains both 0 and 1, which people confuse with letters.
    let key = std::iter::repeat_with(|| server.issue_licenses(1, 50))
        .flatten()
        .find(|key| key.contains('0') && key.contains('1'))
        .unwrap();
    for typed in [
        key.clone(),
        key.to_lowercase(),
        key.replace('-', ""),
        key.replace('-', " "),
        format!("  {} ", key.replace('-', " - ")),
        key.replace('0', "O"),
        key.replace('0', "o"),
        key.replace('1', "I"),
        key.replace('1', "i").to_lowercase(),
        key.replace('1', "L"),
        key.replace('1', "l").replace('0', "o"),
    ] {
        let response = client.call("activate", &identity(&typed, "laptop"));
        assert!(
            [200, 201].contains(&response.status),
            "{typed:?}: {response:?}"
        );
        assert_eq!(response.body["device_count"], 1);
    }
    let last = if key.ends_with('2') { "3" } else { "2" };
    let mistyped = format!("{}{last}", &key[..key.len() - 1]);
    for wrong in [
        mistyped.as_str(),
        &key[..key.len() - 1],
        &format!("{key}0"),
        "-",
        "U",
        UNKNOWN,
    ] {
        let response = client.call("activate", &identity(wrong, "laptop"));
        assert_eq!(
            response.status_and_code(),
            (404, "license_not_found"),
            "{wrong:?}"
        );
    }
}
