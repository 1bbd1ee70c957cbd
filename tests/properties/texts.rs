//! Every text that is stored composed is accepted, or refused with the name of its field: composing can lengthen a
//! text, and make two texts equal, but never violates a limit of the database.

use license_server::activations;
use license_server::admins::{self, Role};
use license_server::audit::{Act, Actor};
use license_server::customers::{self, CustomerData};
use license_server::db::Tx;
use license_server::devices;
use license_server::error::{Error, Result};
use license_server::flags::{self, FlagChange};
use license_server::id::{LicenseId, ProductId};
use license_server::licenses::{self, EditedTerms, LicenseEdit};
use license_server::products;
use license_server::releases::{self, Release, ReleaseState};
use license_server::text::{clean_input, to_nfc};
use license_server::version::Version;
use license_server::web::body::{self, FromFields};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rusqlite::Connection;
use serde_json::json;

use crate::in_process::{InProcess, NOON};

/// A text of characters that composing turns into one, two or three, about as long as a limit.
fn text() -> impl Strategy<Value = String> {
    let pieces = vec![
        "\u{958}",
        "\u{1d160}",
        "\u{fb2c}",
        "\u{212b}",
        "u\u{308}",
        "a",
        "\u{344}",
    ];
    let piece = prop_oneof![
        6 => proptest::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    let length = proptest::sample::select(vec![1_usize, 64, 90, 100, 128, 200, 255, 4000, 10_000]);
    (proptest::collection::vec(piece, 1..4), length, 0..3_usize).prop_map(
        |(pieces, length, less)| {
            let chars: Vec<char> = pieces.concat().chars().collect();
            let length = length.saturating_sub(less).max(1);
            chars.iter().cycle().take(length).collect()
        },
    )
}

fn actor() -> Actor {
    Actor::server()
}

/// The field, or code, by which it was refused; `None` if it was accepted.
fn refused<T>(
    server: &InProcess,
    work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
) -> Option<String>
where
    T: Send + 'static,
{
    match server.db().write_blocking("t.text", work) {
        Ok(_) => None,
        Err(Error::Invalid { field, .. }) => Some(field.to_owned()),
        Err(Error::Refused(refused)) => Some(refused.code.to_owned()),
        Err(other) => panic!("{other}"),
    }
}

/// Whether `sql` returns `text`, unless it was refused.
fn stored(conn: &Connection, refused: Option<&str>, sql: &str, text: &str) -> bool {
    let read = || {
        conn.query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    refused.is_some() || read() == text
}

fn customer(server: &InProcess, text: &str) -> Result<(), TestCaseError> {
    let conn = server.connect();
    for field in ["name", "company", "note"] {
        let value_of = |name: &str| {
            if name == field {
                text.to_owned()
            } else {
                String::new()
            }
        };
        let name = if field == "name" {
            text.to_owned()
        } else {
            "Ada".to_owned()
        };
        let (company, note) = (value_of("company"), value_of("note"));
        let new = CustomerData {
            name,
            company,
            note,
            ..CustomerData::default()
        };
        let refused_by = refused(server, move |tx| {
            customers::add(&Act::new(tx, &actor(), NOON), &new)
        });
        prop_assert!(
            refused_by
                .as_deref()
                .is_none_or(|refused_by| refused_by == field),
            "{:?}",
            refused_by
        );
        let sql = format!("select {field} from customers order by customer_id desc limit 1");
        prop_assert!(
            stored(&conn, refused_by.as_deref(), &sql, &clean_input(text)),
            "{}",
            field
        );
    }
    Ok(())
}

fn license(server: &InProcess, text: &str) -> Result<(), TestCaseError> {
    let note = text.to_owned();
    let refused_by = refused(server, move |tx| {
        let terms = EditedTerms {
            note: Some(note),
            ..EditedTerms::default()
        };
        let edit = LicenseEdit {
            id: LicenseId(1),
            terms,
            seen: None,
        };
        licenses::edit(&Act::new(tx, &actor(), NOON), &edit)
    });
    prop_assert!(
        refused_by
            .as_deref()
            .is_none_or(|refused_by| refused_by == "note"),
        "{:?}",
        refused_by
    );
    let sql = "select note from licenses where license_id = 1";
    prop_assert!(stored(
        &server.connect(),
        refused_by.as_deref(),
        sql,
        &clean_input(text)
    ));
    Ok(())
}

fn device(server: &InProcess, text: &str) -> Result<(), TestCaseError> {
    let body = json!({
        "license_key": server.key(0).formatted(), "machine_id": text, "hardware_hash": "h", "version": "1.0.0",
    });
    let read = body::parse(body.to_string().as_bytes())
        .and_then(|mut fields| devices::ClientIdentity::from_fields(&mut fields));
    let client = match read {
        Ok(client) => client,
        Err(Error::Invalid { field, .. }) => {
            prop_assert_eq!(field, "machine_id");
            return Ok(());
        }
        Err(other) => panic!("{other}"),
    };
    let request = activations::ActivationRequest {
        client,
        ..server.activation_request(0, 0)
    };
    let refused_by = refused(server, move |tx| activations::activate(tx, &request));
    prop_assert_eq!(&refused_by, &None);
    prop_assert!(stored(
        &server.connect(),
        None,
        "select machine_id from devices",
        &to_nfc(text)
    ));
    Ok(())
}

fn settings(server: &InProcess, text: &str) -> Result<(), TestCaseError> {
    let conn = server.connect();
    let changes = [("client_name".to_owned(), text.to_owned())];
    let refused_by = refused(server, move |tx| {
        products::set(
            &Act::new(tx, &actor(), NOON),
            ProductId::FIRST,
            &changes,
            None,
        )
    });
    prop_assert!(
        refused_by
            .as_deref()
            .is_none_or(|refused_by| refused_by == "client_name"),
        "{:?}",
        refused_by
    );
    let sql = "select client_name from client_configs";
    prop_assert!(stored(
        &conn,
        refused_by.as_deref(),
        sql,
        &clean_input(text)
    ));
    let change = FlagChange {
        description: Some(text.to_owned()),
        enabled: None,
        share_percent: None,
    };
    let refused_by = refused(server, move |tx| {
        flags::set(
            &Act::new(tx, &actor(), NOON),
            ProductId::FIRST,
            "x",
            &change,
        )
    });
    prop_assert!(
        refused_by
            .as_deref()
            .is_none_or(|refused_by| refused_by == "description"),
        "{:?}",
        refused_by
    );
    let sql = "select description from feature_flags";
    prop_assert!(stored(
        &conn,
        refused_by.as_deref(),
        sql,
        &clean_input(text)
    ));
    Ok(())
}

fn release(server: &InProcess, number: u64, text: &str) -> Result<(), TestCaseError> {
    let release = Release {
        version: Version::new(9, number, 0),
        channel: "stable".to_owned(),
        notes: text.to_owned(),
        download_url: None,
        sha256: None,
        state: ReleaseState::Released,
        released_at: NOON,
    };
    let refused_by = refused(server, move |tx| {
        releases::add(&Act::new(tx, &actor(), NOON), ProductId::FIRST, &release)
    });
    prop_assert!(
        refused_by
            .as_deref()
            .is_none_or(|refused_by| refused_by == "notes"),
        "{:?}",
        refused_by
    );
    let sql = "select notes from releases order by release_id desc limit 1";
    prop_assert!(stored(
        &server.connect(),
        refused_by.as_deref(),
        sql,
        &clean_input(text)
    ));
    Ok(())
}

fn administrator(server: &InProcess, text: &str) -> Result<(), TestCaseError> {
    let name = text.to_owned();
    let refused_by = refused(server, move |tx| {
        let actor = actor();
        admins::add(&Act::new(tx, &actor, NOON), &name, Role::Support, "hash")
    });
    if refused_by.is_none() {
        // The same name in another spelling is a duplicate.
        let again = text.to_owned();
        let refused_by = refused(server, move |tx| {
            let actor = actor();
            admins::add(&Act::new(tx, &actor, NOON), &again, Role::Support, "hash")
        });
        prop_assert_eq!(refused_by.as_deref(), Some("name_taken"));
    }
    Ok(())
}

#[test]
fn text_that_is_stored_composed_is_accepted_or_refused_with_its_field() {
    let mut server = InProcess::new();
    server.issue(3, None);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(crate::rounds(60))
    };
    let number = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&text(), |text| {
        number.set(number.get() + 1);
        customer(&server, &text)?;
        license(&server, &text)?;
        device(&server, &text)?;
        settings(&server, &text)?;
        release(&server, number.get(), &text)?;
        administrator(&server, &text)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
