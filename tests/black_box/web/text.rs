//! Text as people and programs send it: license keys copied from mails, other encodings, names of locales, equivalent
//! Unicode spellings, and the messages about invalid fields.

use serde_json::{Value, json};

use crate::setup::{AUTO_ACTIVATE, started};
use crate::support::{Client, Response, Server, heartbeat_body, identity};

/// `Müller GmbH` with a combining diaeresis, as in file names on macOS.
pub const DECOMPOSED: &str = "Mu\u{308}ller GmbH";
pub const COMPOSED: &str = "M\u{fc}ller GmbH";

/// A key as it comes out of mails, word processors, spreadsheets and input methods.
fn copies(key: &str) -> Vec<String> {
    let wide = key.chars().map(|c| match c {
        '!'..='~' => char::from_u32(u32::from(c) + 0xfee0).unwrap(),
        other => other,
    });
    vec![
        key.replace('-', "\u{2013}"),
        key.replace('-', "\u{2011}"),
        key.replace('-', "\u{2212}"),
        format!("{key}\u{a0}"),
        format!("{key}\r\n"),
        format!("\t{key}"),
        format!("\u{201e}{key}\u{201c}"),
        format!("\u{ab}{key}\u{bb}"),
        format!("\"{key}\""),
        format!("\u{feff}{key}\u{200b}"),
        key.replace('-', "-\u{ad}"),
        key.replace('-', " \u{2014} \u{2028}"),
        wide.collect(),
        key.chars().flat_map(|c| [c, '\u{2009}']).collect(),
    ]
}

/// `text`, encoded for a query string.
pub fn percent_encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub fn names(found: &Value) -> Vec<&str> {
    let found = found.as_array().unwrap().iter();
    found.map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn a_license_key_is_accepted_however_it_was_copied() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_licenses(1, 2).remove(0);
    let (client, mut panel) = (server.client(), server.logged_in_browser("support"));
    let token = client.session(&key, "laptop");
    for copy in copies(&key) {
        let response = client.call("verify", &identity(&copy, "laptop"));
        assert_eq!(
            response.status_and_code(),
            (200, "valid"),
            "{copy:?}: {response:?}"
        );
        let response = client.call("session/heartbeat", &heartbeat_body(&copy, &token));
        assert_eq!(response.status, 200, "{copy:?}: {response:?}");
        let page = panel
            .get(&format!("/licenses?q={}", percent_encode(&copy)))
            .text;
        assert_eq!(page.matches("<th scope=\"row\">").count(), 1, "{copy:?}");
        let page = panel
            .get(&format!("/sessions?q={}", percent_encode(&copy)))
            .text;
        assert!(page.contains(&key), "{copy:?}");
    }
    let copy = copies(&key).concat().replace(&key, "");
    assert!(
        copy.len() > 64,
        "ignored characters do not count towards the length"
    );
    let padded = format!("{}{key}", "\u{200b}".repeat(100));
    let end = json!({ "session_token": token, "license_key": padded });
    assert_eq!(client.call("session/end", &end).status, 200);
    let leave = json!({ "license_key": padded, "hardware_hash": "hash of laptop" });
    assert_eq!(client.call("deactivate", &leave).status, 200);
    let typed = &copies(&key)[0];
    for command in [
        &["license", "show", typed][..],
        &["license", "list", "--search", typed],
        &["license", "suspend", typed],
        &["license", "reinstate", typed],
        &["license", "extend", typed, "--until", "2099-12-31"],
        &[
            "license",
            "bind-domain",
            typed,
            "https://www.example.org/shop",
        ],
        &["license", "transfer-domain", typed, "www.example.net."],
        &["license", "cancel-transfer", typed],
        &["license", "free-domain", typed],
        &["session", "history", "--license", typed],
    ] {
        let output = server.json(command).to_string();
        assert!(output.contains(&key), "{command:?}: {output}");
    }
    let history = panel.get(&format!(
        "/sessions/history?license={}",
        percent_encode(typed)
    ));
    assert!(history.text.contains(&key), "{}", history.text);
    // Control characters are still refused.
    for wrong in ["\u{0}", "\u{1b}", "\u{7f}"] {
        let response = client.call("verify", &identity(&format!("{key}{wrong}"), "laptop"));
        assert_eq!(
            response.status_and_code(),
            (422, "invalid_field"),
            "{wrong:?}"
        );
    }
}

#[test]
fn json_may_begin_with_a_byte_order_mark_and_a_wrong_encoding_is_named() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let body = identity(&key, "K\u{e4}the").to_string();
    let marked = format!("\u{feff}{body}");
    assert_eq!(client.send("activate", marked.as_bytes(), &[]).status, 201);
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wider = |text: &str| {
        text.chars()
            .flat_map(|c| u32::from(c).to_be_bytes())
            .collect()
    };
    let latin: Vec<u8> = body.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let table: [(Vec<u8>, &str); 7] = [
        (wide(&body), "UTF-16"),
        (wide(&marked), "UTF-16"),
        (wider(&body), "UTF-32"),
        (wider(&marked), "UTF-32"),
        (latin, "UTF-8"),
        (Vec::new(), "JSON"),
        (b"[]".to_vec(), "JSON"),
    ];
    for (bytes, word) in table {
        let mut details = Vec::new();
        for language in ["en", "de"] {
            let response = client.send("activate", &bytes, &[("Accept-Language", language)]);
            assert_eq!(
                response.status_and_code(),
                (400, "malformed_json"),
                "{word}"
            );
            details.push(response.body["detail"].as_str().unwrap().to_owned());
        }
        assert!(
            details.iter().all(|detail| detail.contains(word)),
            "{details:?}"
        );
        assert_ne!(details[0], details[1]);
    }
    let plain = client.send("activate", b"{", &[("Accept-Language", "en")]);
    assert!(!plain.body["detail"].as_str().unwrap().contains("UTF"));
}

/// Every field that a program sends, and what the message about it must contain in English and German.
const FORMS: &[(&str, &str, &str)] = &[
    ("license_key", "1 to 64 characters", "1 bis 64 Zeichen"),
    ("machine_id", "1 to 255 characters", "1 bis 255 Zeichen"),
    ("hardware_hash", "1 to 255 characters", "1 bis 255 Zeichen"),
    (
        "version",
        "three numbers such as 1.4.0",
        "drei Zahlen wie 1.4.0",
    ),
    ("session_token", "the UUID", "die UUID"),
    ("Idempotency-Key", "1 to 64 visible", "1 bis 64 sichtbare"),
    (
        "Signature-Nonce",
        "16 to 64 random bytes",
        "16 bis 64 zuf\u{e4}llige Bytes",
    ),
    ("Content-Digest", "SHA-256", "SHA-256"),
    ("body", "without control characters", "keine Steuerzeichen"),
];

/// Asserts that `send` gets a message about `field` and its valid form in both languages; returns the English one.
fn invalid_field_message(send: impl Fn(&str) -> Response, field: &str) -> String {
    let (_, english, german) = FORMS.iter().find(|(name, ..)| *name == field).unwrap();
    let details = [("en", english), ("de", german)].map(|(language, form)| {
        let response = send(language);
        assert_eq!(
            response.status_and_code(),
            (422, "invalid_field"),
            "{response:?}"
        );
        assert_eq!(response.body["field"], field, "{response:?}");
        let detail = response.body["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(form) && detail.contains(field), "{detail}");
        assert!(!detail.contains(['{', '}']), "{detail}");
        detail
    });
    assert_ne!(details[0], details[1]);
    details[0].clone()
}

fn message_about(client: &Client, endpoint: &str, body: &Value, field: &str) -> String {
    invalid_field_message(
        |language| client.call_with(endpoint, body, &[("Accept-Language", language)]),
        field,
    )
}

#[test]
fn messages_about_invalid_fields_are_exact_in_both_languages() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    let complete = identity(&key, "laptop");
    let leave = json!({ "license_key": key, "hardware_hash": "hash of laptop" });
    let end = json!({ "session_token": token, "license_key": key });
    for (endpoint, body) in [
        ("activate", &complete),
        ("verify", &complete),
        ("session/start", &complete),
        ("deactivate", &leave),
        ("session/heartbeat", &end),
        ("session/end", &end),
    ] {
        for field in body.as_object().unwrap().keys() {
            let wrong = |value: Value| {
                let mut body = body.clone();
                body[field] = value;
                message_about(&client, endpoint, &body, field)
            };
            for (value, word) in [
                (json!(1.4), "is not a string"),
                (json!(["x"]), "is not a string"),
                (json!(""), "is empty"),
                (json!("x".repeat(256)), "is longer than"),
                (json!("a\u{0}b"), "a control character"),
            ] {
                let message = wrong(value);
                assert!(message.contains(word), "{endpoint} {message}");
            }
            let optional = (endpoint, field.as_str()) == ("session/end", "license_key");
            if !optional {
                assert!(
                    wrong(Value::Null).contains("is not a string"),
                    "{endpoint} {field}"
                );
                let mut without = body.clone();
                without.as_object_mut().unwrap().remove(field);
                let message = message_about(&client, endpoint, &without, field);
                assert!(message.contains("is missing"), "{endpoint} {message}");
            }
        }
    }
    for version in ["1.4.0.0", "1.4", "1.4.0-beta.1", "v1.4.0"] {
        let mut body = complete.clone();
        body["version"] = json!(version);
        let message = message_about(&client, "verify", &body, "version");
        assert!(message.contains("is malformed"), "{message}");
    }
    let mut body = end.clone();
    body["session_token"] = json!("not-a-uuid");
    message_about(&client, "session/heartbeat", &body, "session_token");
    let mut body = complete.clone();
    body["unknown"] = json!("a\nb");
    message_about(&client, "verify", &body, "body");
    for query in ["", "?version=", "?version=1.4"] {
        let path = format!("/api/license/version{query}");
        invalid_field_message(
            |language| client.get_with(&path, &[("Accept-Language", language)]),
            "version",
        );
    }
    for (header, wrong) in [("Idempotency-Key", "a b"), ("Signature-Nonce", "short")] {
        let ask = |language: &str| {
            let headers = [("Accept-Language", language), (header, wrong)];
            client.call_with("session/start", &complete, &headers)
        };
        invalid_field_message(ask, header);
    }
    let nonce = "AAAAAAAAAAAAAAAAAAAAAA==";
    let ask = |language: &str| {
        let headers = [
            ("Accept-Language", language),
            ("Signature-Nonce", nonce),
            ("Content-Digest", "md5=:AA==:"),
        ];
        client.call_with("verify", &complete, &headers)
    };
    invalid_field_message(ask, "Content-Digest");
}

#[test]
fn the_name_of_a_locale_selects_its_language() {
    let server = Server::start();
    let client = server.client();
    let long = format!("{}en", "fr,".repeat(1000));
    for (accept, language) in [
        ("en-US", "en"),
        ("en_US", "en"),
        ("en_GB.UTF-8", "en"),
        ("fr_FR, en_US;q=0.8", "en"),
        ("en_US:en", "en"),
        ("de_AT@euro", "de"),
        ("de;q=0, *", "en"),
        ("C", "de"),
        ("POSIX", "de"),
        ("*", "de"),
        (&long, "de"),
    ] {
        let response = client.call_with("verify", &json!({}), &[("Accept-Language", accept)]);
        assert_eq!(
            response.header("content-language"),
            Some(language),
            "{accept:.40}"
        );
    }
    let mut browser = server.browser();
    browser.headers = vec![("Accept-Language".to_owned(), "en_US".to_owned())];
    assert!(browser.get("/login").text.contains("<html lang=\"en\""));
}

#[test]
fn session_tokens_and_api_keys_are_accepted_in_several_spellings() {
    let server = Server::start();
    let key = server.issue_license(1);
    let client = server.client();
    let token = client.session(&key, "laptop");
    for form in [
        token.to_uppercase(),
        token.replace('-', ""),
        format!("{{{token}}}"),
        format!("urn:uuid:{token}"),
    ] {
        let response = client.call("session/heartbeat", &heartbeat_body(&key, &form));
        assert_eq!(response.status, 200, "{response:?}");
    }
    for (sent, status) in [
        (format!("\"{}\"", server.api_key()), 200),
        (format!("'{}'", server.api_key()), 200),
        (format!(" {}  ", server.api_key()), 200),
        (format!("{} x", server.api_key()), 401),
        (format!("x{}", server.api_key()), 401),
        ("\"\"".to_owned(), 401),
    ] {
        let response = client
            .with_key(&sent)
            .get("/api/license/version?version=1.0.0");
        assert_eq!(response.status, status, "{sent:?}: {response:?}");
    }
}

#[test]
fn the_length_of_a_text_is_checked_as_it_is_stored() {
    let server = started(&[AUTO_ACTIVATE], &[]);
    let key = server.issue_license(3);
    let client = server.client();
    // Normalization turns each of these characters into two.
    for (length, status) in [(127, 201), (128, 422), (255, 422)] {
        let mut body = identity(&key, &length.to_string());
        body["machine_id"] = "\u{958}".repeat(length).into();
        for call in ["activate", "session/start"] {
            let response = client.call(call, &body);
            assert_eq!(response.status, status, "{call} {length} {response:?}");
            if status == 422 {
                assert_eq!(response.body["field"], "machine_id", "{response:?}");
            }
        }
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

#[test]
fn a_device_is_released_by_its_fingerprint_or_its_name_and_neither_is_truncated() {
    let server = Server::start();
    let key = server.issue_license(9);
    let client = server.client();
    let fingerprint = "f".repeat(255);
    for (name, hash) in [
        ("Laptop", fingerprint.as_str()),
        ("twin", "a"),
        ("twin", "b"),
        ("a", "c"),
    ] {
        let mut body = identity(&key, name);
        body["hardware_hash"] = json!(hash);
        assert_eq!(client.call("activate", &body).status, 201);
    }
    let shown = String::from_utf8(server.cli(&["license", "show", &key]).stdout).unwrap();
    assert!(shown.contains(&fingerprint), "{shown}");
    let release = |named: &str| {
        let output = server.cli(&["license", "release-device", &key, named]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (status, text) = release("twin");
    assert!(
        status == Some(2) && text.contains("a, b") && text.lines().count() == 1,
        "{text}"
    );
    for (named, hash) in [
        ("laptop", fingerprint.as_str()),
        ("a", "a"),
        ("twin", "b"),
        ("a", "c"),
    ] {
        let (status, text) = release(named);
        assert!(
            status == Some(0) && text.contains(&format!("({hash})")),
            "{named}: {text}"
        );
    }
    assert_eq!(release("twin").0, Some(1));
}

#[test]
fn an_invalid_filter_is_refused_and_does_not_show_everything() {
    let server = Server::start();
    server.issue_license(1);
    let mut panel = server.logged_in_browser("support");
    for address in [
        "/audit?since=31.12.2026",
        "/audit?since=2026-02-30",
        "/audit.csv?since=x",
        "/audit?room=nonsense",
        "/audit?before=x",
        "/licenses?state=nonsense",
        "/licenses?customer=x",
        "/licenses?last=2&first=x",
        "/licenses?after=x",
        "/licenses?before_id=x",
        "/licenses?order=nonsense",
        "/licenses?rows=51",
        "/customers?order=-nonsense",
        "/plans?row=0",
        "/licenses.csv?state=nonsense",
        "/licenses.csv?customer=x",
        "/customers?after=a&after_id=x",
        "/sessions?order=nonsense",
        "/sessions?after=x",
        "/sessions/history?reason=nonsense",
        "/sessions/history?span=nonsense",
        "/sessions/history?from=x",
        "/sessions/history?license=-",
        "/sessions/history?before=x",
        "/sessions/history.csv?reason=nonsense",
        "/releases?state=nonsense",
        "/releases?after=x",
        "/sites?after=a&after_id=x",
        "/sites/handshakes?before=x",
        "/sites/transfers?after_id=7&after=x",
    ] {
        let response = panel.get(address);
        assert_eq!(response.status, 422, "{address}: {}", response.text);
        assert!(!response.text.contains("<th scope=\"row\">"), "{address}");
        // The message names the parameter.
        let (name, _) = address
            .rsplit(['?', '&'])
            .next()
            .unwrap()
            .split_once('=')
            .unwrap();
        assert!(response.text.contains(name), "{address}: {}", response.text);
    }
    let day = panel.get("/audit?since=31.12.2026&room=customers").text;
    assert!(day.contains("a date such as 2026-12-31"), "{day}");
    assert!(
        day.contains("value=\"customers\" selected"),
        "the other filters stay: {day}"
    );
    // Empty parameters are ignored.
    for address in [
        "/audit?since=&room=&actor=",
        "/licenses?state=&customer=&q=",
        "/sessions/history?reason=&span=&from=&to=",
        "/sessions?order=&q=",
    ] {
        assert_eq!(panel.get(address).status, 200, "{address}");
    }
}

#[test]
fn csv_files_are_separated_as_usual_in_the_language() {
    let server = Server::start();
    server.client().session(&server.issue_license(1), "laptop");
    let running = server.json(&["session", "list"])["sessions"][0]["id"].to_string();
    server.json(&["session", "end", &running]);
    let mut panel = server.logged_in_browser("support");
    for (language, end) in [("de", ';'), ("en", ',')] {
        panel.headers.retain(|(name, _)| name != "Accept-Language");
        panel
            .headers
            .push(("Accept-Language".to_owned(), language.to_owned()));
        for path in ["/licenses.csv", "/sessions/history.csv", "/audit.csv"] {
            let table = panel.get(path).text;
            let bare = table.strip_prefix('\u{feff}').unwrap();
            assert!(bare.lines().count() > 1, "{path}: {bare}");
            for line in bare.lines() {
                let cells = line.matches(&format!("\"{end}\"")).count();
                assert!(cells >= 7, "{path} {language}: {line}");
            }
        }
    }
}

#[test]
fn versions_and_urls_may_be_pasted_as_found() {
    let server = Server::start();
    let mut panel = server.logged_in_browser("admin");
    let added = server.json(&["release", "add", "v1.4.0", "--notes", "Gro\u{308}\u{df}er"]);
    assert_eq!(added["releases"][0]["version"], "1.4.0");
    assert_eq!(added["releases"][0]["notes"], "Gr\u{f6}\u{df}er");
    server.json(&["config", "set", "current_version=v1.4.0"]);
    let form = [
        ("version", " V1.5.0 "),
        ("channel", "stable"),
        ("notes", ""),
    ];
    assert_eq!(panel.post("/releases/new", &form).status, 303);
    server.json(&["release", "yank", "v1.5.0"]);
    let key = server.issue_license(1);
    let form = [("domain", "https://WWW.Example.org/shop?a=b"), ("seen", "")];
    let page = panel.get("/licenses/1/bind").text;
    let seen = crate::browser::field(&page, "seen");
    let form = form.map(|(name, value)| {
        if name == "seen" {
            (name, seen.as_str())
        } else {
            (name, value)
        }
    });
    assert_eq!(panel.post("/licenses/1/bind", &form).status, 303);
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["domain"], "www.example.org");
    let port = server.cli(&[
        "license",
        "issue",
        "--customer",
        "1",
        "--domain",
        "https://example.org:8443",
    ]);
    assert_eq!(
        port.status.code(),
        Some(2),
        "a port would be lost: {port:?}"
    );
}

#[test]
fn a_password_is_the_same_in_every_unicode_spelling_and_line_ending() {
    let server = Server::start();
    let add = |name: &str, input: &[u8]| {
        use std::io::Write;
        let words = ["admin", "add", name, "--role", "owner", "--password-stdin"];
        let mut command = server.command(&words);
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let password = "sieben gr\u{fc}ne Fahrr\u{e4}der";
    let decomposed = "sieben gru\u{308}ne Fahrra\u{308}der";
    for (name, input) in [
        ("Ju\u{308}rgen", format!("{password}\n")),
        ("bom", format!("\u{feff}{password}\r\n")),
        ("mac", decomposed.to_owned()),
    ] {
        assert_eq!(add(name, input.as_bytes()).0, Some(0), "{name}");
    }
    for (name, password) in [
        ("J\u{fc}rgen", decomposed),
        ("bom", password),
        ("mac", password),
        ("Ju\u{308}rgen", password),
    ] {
        let response = server.browser().log_in(name, password);
        assert_eq!(response.status, 303, "{name}: {}", response.text);
    }
    let wide: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for input in [wide, b"sieben gr\xfcne Fahrr\xe4der\n".to_vec()] {
        let (status, stderr) = add("other", &input);
        assert!(status == Some(2) && stderr.contains("UTF-8"), "{stderr}");
    }
}
