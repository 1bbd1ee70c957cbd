//! Every text that is stored composed is taken, or refused by the name of its field: composing can lengthen a text, and
//! make two texts the same, but never stops at a limit of the database.

use license_server::admins::{self, Role};
use license_server::audit::Actor;
use license_server::client_config::{self, FlagChange};
use license_server::customers::{self, NewCustomer};
use license_server::db::Tx;
use license_server::devices;
use license_server::error::{Error, Result};
use license_server::id::LicenseId;
use license_server::licenses::{self, EditedTerms};
use license_server::releases::{self, Release, State};
use license_server::text::{composed, typed};
use license_server::version::Version;
use license_server::web::body::{self, FromFields};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rusqlite::Connection;
use serde_json::json;

use crate::house::{House, NOON};

/// A text of characters of which composing makes one, two or three, about as long as a limit is.
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
            let whole: Vec<char> = pieces.concat().chars().collect();
            let length = length.saturating_sub(less).max(1);
            whole.iter().cycle().take(length).collect()
        },
    )
}

fn actor() -> Actor {
    Actor::server()
}

/// The field that it was refused by; none where it was taken.
fn refused<T>(
    house: &House,
    work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
) -> Option<String>
where
    T: Send + 'static,
{
    match house.db().write_blocking("t.text", work) {
        Ok(_) => None,
        Err(Error::Invalid { field, .. }) => Some(field.to_owned()),
        Err(Error::Refused(refused)) => Some(refused.code.to_owned()),
        Err(other) => panic!("{other}"),
    }
}

/// Whether `sql` says that `text` is stored, where it was taken.
fn stored(file: &Connection, refused: Option<&str>, sql: &str, text: &str) -> bool {
    let read = || {
        file.query_row(sql, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    refused.is_some() || read() == text
}

fn customer(house: &House, text: &str) -> Result<(), TestCaseError> {
    let file = house.look();
    for field in ["name", "company", "note"] {
        let of = |name: &str| {
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
        let (company, note) = (of("company"), of("note"));
        let new = NewCustomer {
            name,
            company,
            note,
            ..NewCustomer::default()
        };
        let told = refused(house, move |tx| customers::add(tx, &new, &actor(), NOON));
        prop_assert!(
            told.as_deref().is_none_or(|told| told == field),
            "{:?}",
            told
        );
        let sql = format!("select {field} from customers order by customer_id desc limit 1");
        prop_assert!(
            stored(&file, told.as_deref(), &sql, &typed(text)),
            "{}",
            field
        );
    }
    Ok(())
}

fn license(house: &House, text: &str) -> Result<(), TestCaseError> {
    let note = text.to_owned();
    let told = refused(house, move |tx| {
        let listed = licenses::listed(tx, LicenseId(1), NOON)?;
        let terms = EditedTerms {
            kind: licenses::Kind::Full,
            device_limit: 3,
            valid_from: NOON.day(),
            valid_until: String::new(),
            note,
        };
        let seen = licenses::state(&listed.license);
        licenses::edit(tx, LicenseId(1), &terms, &seen, &actor(), NOON)
    });
    prop_assert!(
        told.as_deref().is_none_or(|told| told == "note"),
        "{:?}",
        told
    );
    let sql = "select note from licenses where license_id = 1";
    prop_assert!(stored(&house.look(), told.as_deref(), sql, &typed(text)));
    Ok(())
}

fn device(house: &House, text: &str) -> Result<(), TestCaseError> {
    let body = json!({
        "license_key": house.key(0).shown(), "machine_id": text, "hardware_hash": "h", "version": "1.0.0",
    });
    let read = body::parse(body.to_string().as_bytes())
        .and_then(|mut fields| devices::ClientIdentity::from_fields(&mut fields));
    let claim = match read {
        Ok(claim) => claim,
        Err(Error::Invalid { field, .. }) => {
            prop_assert_eq!(field, "machine_id");
            return Ok(());
        }
        Err(other) => panic!("{other}"),
    };
    let (quota, now) = (
        license_server::security::rate_limit::Quota::unlimited(),
        house.now(),
    );
    let told = refused(house, move |tx| {
        devices::activate(tx, &claim, None, &quota, now)
    });
    prop_assert_eq!(&told, &None);
    prop_assert!(stored(
        &house.look(),
        None,
        "select machine_id from devices",
        &composed(text)
    ));
    Ok(())
}

fn settings(house: &House, text: &str) -> Result<(), TestCaseError> {
    let file = house.look();
    let changes = [("client_name".to_owned(), text.to_owned())];
    let told = refused(house, move |tx| {
        client_config::set(tx, &changes, &actor(), NOON)
    });
    prop_assert!(
        told.as_deref().is_none_or(|told| told == "client_name"),
        "{:?}",
        told
    );
    let sql = "select client_name from client_configs";
    prop_assert!(stored(&file, told.as_deref(), sql, &typed(text)));
    let change = FlagChange {
        description: Some(text.to_owned()),
        enabled: None,
        share_percent: None,
    };
    let told = refused(house, move |tx| {
        client_config::set_flag(tx, "x", &change, &actor(), NOON)
    });
    prop_assert!(
        told.as_deref().is_none_or(|told| told == "description"),
        "{:?}",
        told
    );
    let sql = "select description from feature_flags";
    prop_assert!(stored(&file, told.as_deref(), sql, &typed(text)));
    Ok(())
}

fn release(house: &House, number: u64, text: &str) -> Result<(), TestCaseError> {
    let release = Release {
        version: Version::new(9, number, 0),
        channel: "stable".to_owned(),
        notes: text.to_owned(),
        download_url: None,
        sha256: None,
        state: State::Released,
        released_at: NOON,
    };
    let told = refused(house, move |tx| releases::add(tx, &release, &actor()));
    prop_assert!(
        told.as_deref().is_none_or(|told| told == "notes"),
        "{:?}",
        told
    );
    let sql = "select notes from releases order by release_id desc limit 1";
    prop_assert!(stored(&house.look(), told.as_deref(), sql, &typed(text)));
    Ok(())
}

fn administrator(house: &House, text: &str) -> Result<(), TestCaseError> {
    let name = text.to_owned();
    let told = refused(house, move |tx| {
        admins::add(tx, &name, Role::Support, "hash", &actor(), NOON)
    });
    if told.is_none() {
        // The same name in another spelling is taken.
        let again = text.to_owned();
        let told = refused(house, move |tx| {
            admins::add(tx, &again, Role::Support, "hash", &actor(), NOON)
        });
        prop_assert_eq!(told.as_deref(), Some("name_taken"));
    }
    Ok(())
}

#[test]
fn whatever_is_stored_composed_is_taken_or_refused_by_its_field_and_never_fails() {
    let mut house = House::new();
    house.issue(3, None);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(crate::rounds(60))
    };
    let number = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&text(), |text| {
        number.set(number.get() + 1);
        customer(&house, &text)?;
        license(&house, &text)?;
        device(&house, &text)?;
        settings(&house, &text)?;
        release(&house, number.get(), &text)?;
        administrator(&house, &text)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
