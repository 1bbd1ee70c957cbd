//! Input of every kind is either parsed or refused, and never causes a panic: keys, versions, domains, JSON,
//! forms, CSV cells, parameters of signatures. With random texts, and texts that are nearly valid.
//! `LICENSE_TEST_ROUNDS` lengthens the test.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use license_server::config::Language;
use license_server::domain::Domain;
use license_server::licenses::{LicenseKey, key_part};
use license_server::security::signing::{Nonce, check_request_digest, content_digest};
use license_server::text::to_nfc;
use license_server::version::Version;
use license_server::web::body;
use license_server::web::csv::Csv;
use license_server::web::form::Fields;
use license_server::web::html::Html;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Map, Value};

/// Each round is 250 texts.
fn config() -> Config {
    Config {
        failure_persistence: None,
        ..Config::with_cases(crate::rounds(4).saturating_mul(250))
    }
}

/// Any text, or one made of `pieces`: random characters alone are rarely nearly valid.
fn text(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[ -~]{0,8}",
    ];
    prop_oneof![
        1 => any::<String>(),
        3 => vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
    ]
}

/// Without a byte order mark, which the parser ignores.
fn bare(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// A JSON value of a few levels, without control characters.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[^\\p{Cc}]{0,12}".prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec(("[^\\p{Cc}]{0,6}", inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_license_key_is_parsed_in_one_way_or_not_at_all(
        typed in text(&["-", " ", "O", "o", "I", "l", "0", "1", "7KZ3M", "U", "\u{ff10}", "\u{131}"]),
    ) {
        if let Some(key) = LicenseKey::parse(&typed) {
            prop_assert_eq!(LicenseKey::parse(&key.formatted()), Some(key));
            prop_assert_eq!(LicenseKey::from_stored(&key.stored()), Some(key));
            // Normalizing twice changes nothing.
            prop_assert_eq!(key_part(&key_part(&typed)), key.stored());
        }
    }

    #[test]
    fn a_license_key_is_recognized_however_it_is_typed_and_one_wrong_character_is_noticed(
        index in 0_usize..25, letter in 0_usize..32, gaps in vec(0_usize..29, 0..4), lower in any::<bool>(),
    ) {
        let key = LicenseKey::new().unwrap();
        let mut typed = if lower { key.formatted().to_lowercase() } else { key.stored() };
        for gap in gaps {
            typed.insert(gap.min(typed.len()), if lower { ' ' } else { '-' });
        }
        prop_assert_eq!(LicenseKey::parse(&typed.replace('0', "o").replace('1', "L")), Some(key));
        let mut wrong = key.stored().into_bytes();
        let other = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[letter];
        prop_assume!(wrong[index] != other);
        wrong[index] = other;
        prop_assert_eq!(LicenseKey::parse(std::str::from_utf8(&wrong).unwrap()), None);
    }

    #[test]
    fn a_version_is_three_numbers_and_compared_as_such(
        typed in text(&[".", "0", "1", "10", "18446744073709551615", "18446744073709551616", "-", "+", "v", " ", "\u{661}"]),
        a in any::<(u16, u16, u16)>(), b in any::<(u16, u16, u16)>(),
    ) {
        if let Ok(version) = typed.parse::<Version>() {
            prop_assert!(typed.len() <= 20 && typed.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()));
            prop_assert_eq!(version.to_string().parse::<Version>(), Ok(version));
        }
        let version = |(major, minor, patch): (u16, u16, u16)| {
            format!("{major}.{minor}.{patch}").parse::<Version>().unwrap()
        };
        prop_assert_eq!(version(a).cmp(&version(b)), a.cmp(&b));
    }

    #[test]
    fn a_domain_is_a_public_name_in_ascii_or_none(
        typed in text(&[".", "example", "www", "xn--", "xn--bcher-kva", "B\u{fc}cher", "-", "_", "127", "0x7f", ":8443", "/", "@",
            "\u{3002}", "\u{ff0e}", "\u{200d}", "\u{ad}", "[", "::1", "localhost", "%2e", " ", "\u{0}"]),
    ) {
        if let Some(domain) = Domain::parse(&typed) {
            let name = domain.as_str();
            prop_assert!(name.len() <= 253 && name.contains('.'));
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)), "{}", name);
            prop_assert!(name.split('.').all(|label| (1..=63).contains(&label.len())), "{}", name);
            prop_assert!(name.parse::<std::net::IpAddr>().is_err());
            prop_assert!(Domain::parse(name).is_some_and(|again| again == domain));
            // A URL with this name leads to this name and nowhere else.
            let address = format!("https://{name}/x").parse::<ureq::http::Uri>().unwrap();
            prop_assert_eq!(address.host(), Some(name));
        }
        if let Some(domain) = Domain::from_input(&typed) {
            prop_assert_eq!(Domain::parse(domain.as_str()), Some(domain));
        }
    }

    #[test]
    fn json_is_parsed_as_by_other_parsers_or_refused(value in json(), cut in 0_usize..200, byte in any::<u8>()) {
        let text = value.to_string();
        let read = body::parse(text.as_bytes());
        prop_assert_eq!(read.is_ok(), value.is_object());
        // One byte changed, or the end missing: what is still parsed is valid JSON for other parsers, too.
        let mut broken = text.into_bytes();
        let at = cut.min(broken.len());
        if byte % 2 == 0 {
            broken.truncate(at);
        } else if let Some(index) = broken.get_mut(at) {
            *index = byte;
        }
        if body::parse(&broken).is_ok() {
            prop_assert!(serde_json::from_slice::<Map<String, Value>>(bare(&broken)).is_ok());
        }
    }

    #[test]
    fn json_of_any_bytes_is_an_object_or_refused(
        bytes in vec(any::<u8>(), 0..300),
        typed in text(&["{", "}", "[", "]", "\"", ":", ",", "\\u", "\\ud800", "1e999", "-", "null", "\"a\":", "0"]),
    ) {
        for bytes in [bytes, typed.into_bytes()] {
            if body::parse(&bytes).is_ok() {
                prop_assert!(serde_json::from_slice::<Map<String, Value>>(bare(&bytes)).is_ok());
            }
        }
    }

    #[test]
    fn a_form_is_parsed_as_a_browser_encoded_it(
        pairs in vec((any::<String>(), any::<String>()), 0..20), bytes in vec(any::<u8>(), 0..300),
    ) {
        let sent = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let read = Fields::parse(sent.as_bytes()).unwrap();
        let wanted: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| (name.clone(), to_nfc(&value.replace("\r\n", "\n")))).collect();
        let read: Vec<(String, String)> =
            read.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        prop_assert_eq!(read, wanted);
        prop_assert!(Fields::parse(&bytes).is_err() || Fields::parse(&bytes).unwrap().iter().count() <= 200);
    }

    #[test]
    fn parameters_of_signatures_have_one_form_or_are_refused(
        bytes in vec(any::<u8>(), 0..80), body in vec(any::<u8>(), 0..200),
        typed in text(&["sha-256=:", ":", "=", "==", "A", "+/", "sha-512=:", ", ", ";", "\"", " ", "-_"]),
    ) {
        let encoded = STANDARD.encode(&bytes);
        let nonce = Nonce::parse(std::iter::once(encoded.as_str()));
        prop_assert_eq!(nonce.is_ok(), (16..=64).contains(&bytes.len()));
        // Values that are repeated in the signature must need no quoting (RFC 8941, 3.3.3).
        if Nonce::parse(std::iter::once(typed.as_str())).is_ok() {
            prop_assert!(typed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)));
        }
        let digest = content_digest(&body);
        prop_assert!(check_request_digest(std::iter::once(digest.as_str()), &body).is_ok());
        prop_assert!(check_request_digest([digest.as_str(), digest.as_str()].into_iter(), &body).is_err());
        prop_assert_eq!(check_request_digest(std::iter::once(typed.as_str()), &body).is_ok(), typed == digest);
    }

    #[test]
    fn a_csv_cell_stays_one_cell_and_is_never_a_formula(
        cells in vec(text(&["=", "+", "-", "@", "\t", "\r", "\n", "\"", ",", ";", "cmd|'/c calc'!A0", "\u{ff1d}"]), 3),
    ) {
        let mut csv = Csv::new(&["a", "b", "c"], Language::En).unwrap();
        csv.row(&cells).unwrap();
        let Html::File { bytes, .. } = csv.into_file("x.csv").unwrap() else { panic!("no file") };
        // A byte order mark tells spreadsheets that it is UTF-8.
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let mut rows = ::csv::Reader::from_reader(text);
        let row = rows.records().next().unwrap().unwrap();
        prop_assert_eq!(row.len(), 3);
        prop_assert!(rows.records().next().is_none());
        for (cell, written) in cells.iter().zip(&row) {
            for begin in written.split([';', ',', '\t', '\r', '\n']) {
                let begin = begin.trim_start_matches([' ', '"']);
                prop_assert!(!begin.starts_with(['=', '+', '-', '@']), "{:?}", written);
            }
            let bare = |text: &str| text.replace('\'', "");
            prop_assert_eq!(bare(written), bare(cell));
        }
    }
}
