//! A shop to look at: customers, licenses in every state, releases, flags, and a month of sessions, made
//! through the same verbs as everything else, with the dates of then.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{HEARTBEAT_S, TIMEOUT_S, set_intervals};
use crate::admins::{self, Role};
use crate::audit::Actor;
use crate::client_config::{self, FlagChange, ProgramSettingsCache};
use crate::clock::{Now, Pauses, Tick, UnixMs};
use crate::customers::{self, NewCustomer};
use crate::db::Tx;
use crate::devices::ClientIdentity;
use crate::domain::Domain;
use crate::error::{Doing, Error, Result};
use crate::handshake::{self, Ended, Outcome};
use crate::id::SessionToken;
use crate::licenses::{self, Kind, License, Order};
use crate::releases::{self, Release};
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::Quota;
use crate::security::secret;
use crate::sessions::{self, GivenKey, LiveSessions, StartRequest};
use crate::version::Version;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Days of history.
const DAYS: u32 = 30;
/// Programs that run while the demo does.
const RUNNING: usize = 11;

/// Name, mail, company, note.
const CUSTOMERS: &[(&str, &str, &str, &str)] = &[
    (
        "Ada Lovelace",
        "ada@example.org",
        "Analytical Engines Ltd",
        "Pays by invoice.",
    ),
    ("Konrad Zuse", "konrad@example.org", "Zuse Apparatebau", ""),
    ("Grace Hopper", "grace@example.org", "", "Found the moth."),
    (
        "Studio Nordlicht",
        "post@nordlicht.example",
        "Studio Nordlicht GmbH",
        "Rechnung an die Buchhaltung.",
    ),
    ("Käthe Weiß", "kaethe@example.org", "Weiß & Söhne", ""),
    (
        "Bäckerei Grünewald",
        "info@gruenewald.example",
        "Bäckerei Grünewald KG",
        "Kasse und Backstube.",
    ),
    (
        "Ottawa Transit",
        "it@transit.example",
        "Ottawa Transit",
        "Twenty dispatch desks.",
    ),
    ("Fjord Media", "hei@fjord.example", "Fjord Media AS", ""),
    (
        "Kessler & Söhne",
        "kontakt@kessler.example",
        "Kessler & Söhne OHG",
        "Neukunde, noch nicht installiert.",
    ),
    (
        "Quasar Labs",
        "licenses@quasar.example",
        "Quasar Labs Inc.",
        "",
    ),
    (
        "Lumen Press",
        "hello@lumen.example",
        "Lumen Press",
        "Wants to decide by the end of the month.",
    ),
    (
        "Emmy Noether",
        "emmy@example.org",
        "Institut für Symmetrie",
        "Lehrlizenz.",
    ),
];

/// Who may log in.
pub(super) struct Owner {
    pub(super) name: &'static str,
    pub(super) password_hash: String,
}

/// What the throw-away database holds.
pub(super) struct Sample {
    pub(super) api_key: String,
    pub(super) customers: usize,
    pub(super) licenses: usize,
    pub(super) history: u32,
    /// The key that two programs compete for.
    pub(super) fought_over: String,
    /// Keys of licenses on which programs are to run, and on which devices.
    pub(super) to_run: Vec<(String, String)>,
}

/// Fills an empty database.
///
/// # Errors
/// What the verbs return.
pub(super) fn fill(tx: &Tx<'_>, owner: &Owner, now: Now) -> Result<Sample> {
    let actor = Actor {
        name: "demo".to_owned(),
        source: String::new(),
    };
    let wall = now.wall;
    admins::add(
        tx,
        owner.name,
        Role::Owner,
        &owner.password_hash,
        &actor,
        wall,
    )?;
    let pairs = [
        ("client_name", "Nordlicht Studio"),
        ("current_version", "1.2.0"),
        ("minimum_version", "1.0.0"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    client_config::set(tx, &pairs, &actor, wall)?;
    let config = set_intervals(tx, HEARTBEAT_S, TIMEOUT_S, now)?;
    add_releases(tx, &actor, wall)?;
    add_flags(tx, &actor, wall)?;
    let licenses = sell(tx, &actor, wall)?;
    let fought_over = licenses
        .first()
        .ok_or_else(|| Error::not_found("license", ""))?
        .key
        .shown();
    let mut history = 0;
    let used: Vec<&License> = licenses
        .iter()
        .skip(1)
        .filter(|license| !is_spare(license))
        .collect();
    for (number, license) in (1..).zip(&used) {
        history += a_month(tx, license, number, now)?;
    }
    close_some(tx, &used, &actor, wall)?;
    let on_domains = licenses.iter().filter(|license| license.domain.is_some());
    visit(tx, &on_domains.collect::<Vec<_>>(), &actor, wall)?;
    let to_run = used
        .iter()
        .rev()
        .filter(|license| license.valid_until.is_none_or(|end| end > wall));
    let to_run = to_run
        .take(RUNNING)
        .map(|license| (license.key.shown(), device(license, 0)));
    Ok(Sample {
        api_key: config.api_key.reveal().clone(),
        customers: CUSTOMERS.len(),
        licenses: licenses.len(),
        history,
        fought_over,
        to_run: to_run.collect(),
    })
}

fn add_releases(tx: &Tx<'_>, actor: &Actor, wall: UnixMs) -> Result<()> {
    for (version, days, channel, notes) in [
        (Version::new(1, 0, 0), 190, "stable", "The first one."),
        (
            Version::new(1, 1, 0),
            120,
            "stable",
            "Opens large files faster.",
        ),
        (Version::new(1, 1, 1), 95, "stable", "Mends printing on A3."),
        (
            Version::new(1, 2, 0),
            20,
            "stable",
            "Dark mode. Fewer clicks.",
        ),
        (
            Version::new(1, 3, 0),
            2,
            "beta",
            "Tables, for those who want to try them.",
        ),
    ] {
        let release = Release {
            version,
            channel: channel.to_owned(),
            notes: notes.to_owned(),
            download_url: Some(format!(
                "https://downloads.example.org/nordlicht-{version}.zip"
            )),
            sha256: Some(secret::hex(&secret::sha256(version.to_string().as_bytes()))),
            state: releases::State::Released,
            released_at: wall.minus(DAY * days),
        };
        releases::add(tx, &release, actor)?;
    }
    Ok(())
}

fn add_flags(tx: &Tx<'_>, actor: &Actor, wall: UnixMs) -> Result<()> {
    for (name, share, description) in [
        ("dark_mode", 50, "Half of the licenses see it."),
        ("new_export", 10, "A first few."),
    ] {
        let change = FlagChange {
            enabled: Some(true),
            share_percent: Some(share),
            description: Some(description.to_owned()),
        };
        client_config::set_flag(tx, name, &change, actor, wall)?;
    }
    Ok(())
}

/// Two licenses for each customer, of many kinds and lengths.
fn sell(tx: &Tx<'_>, actor: &Actor, wall: UnixMs) -> Result<Vec<License>> {
    let mut licenses = Vec::new();
    for (number, (name, email, company, note)) in (0_u32..).zip(CUSTOMERS) {
        let sold = wall.minus(DAY * (340 - 25 * number));
        let new = NewCustomer {
            name: (*name).to_owned(),
            email: (*email).to_owned(),
            company: (*company).to_owned(),
            note: (*note).to_owned(),
        };
        let customer_id = customers::add(tx, &new, actor, sold)?;
        let trial = number % 4 == 2;
        let order = Order {
            customer_id,
            kind: Kind::Full,
            device_limit: one_of(&[3, 1, 5, 2, 10, 20], number),
            valid_until: (number % 3 == 1).then(|| wall.plus(DAY * (6 + 9 * number))),
            domain: (number % 5 == 3).then(|| format!("www.customer-{number}.example")),
            count: 1,
            note: String::new(),
        };
        licenses.extend(licenses::issue(tx, &order, actor, sold)?);
        let second = Order {
            kind: if trial { Kind::Trial } else { Kind::Full },
            device_limit: 1 + number % 3,
            valid_until: (number == 4).then(|| wall.minus(DAY * 3)),
            domain: None,
            note: if number == 8 {
                "Für das Notebook.".to_owned()
            } else {
                String::new()
            },
            ..order
        };
        let sold = if trial {
            wall.minus(DAY * (10 + number))
        } else {
            sold
        };
        licenses.extend(licenses::issue(tx, &second, actor, sold)?);
    }
    Ok(licenses)
}

/// A customer who has bought, and not installed yet.
fn is_spare(license: &License) -> bool {
    license.customer == "Kessler & Söhne"
}

fn close_some(tx: &Tx<'_>, used: &[&License], actor: &Actor, wall: UnixMs) -> Result<()> {
    for (place, verb) in [
        (
            2,
            licenses::suspend as fn(&Tx<'_>, _, &Actor, UnixMs) -> Result<License>,
        ),
        (9, licenses::revoke),
    ] {
        if let Some(license) = used.get(place) {
            verb(tx, license.id, actor, wall)?;
        }
    }
    Ok(())
}

/// Handshakes of the last days with the sites of some licenses; one of them moves.
fn visit(tx: &Tx<'_>, on_domains: &[&License], actor: &Actor, wall: UnixMs) -> Result<()> {
    let source = ClientAddress::Direct([192, 0, 2, 80].into());
    for (number, license) in (0_u32..).zip(on_domains) {
        let named = license.domain.as_deref().and_then(Domain::parse);
        let domain = named.ok_or_else(|| Error::not_found("domain", license.id))?;
        if number == 0 {
            let to = Domain::parse("www.new-customer.example");
            let to = to.ok_or_else(|| Error::not_found("domain", license.id))?;
            let wish = handshake::BindingChange::Transfer(to);
            handshake::set_domain(tx, license.id, &wish, DAY * 14, actor, wall)?;
        }
        for (hours, operation, ending, reason) in [
            (70, Some("license"), Outcome::Delivered, ""),
            (46, Some("versions"), Outcome::Delivered, ""),
            (22, None, Outcome::Unanswered, "status_404"),
        ] {
            // The last of them has never got through.
            if number == 2 && ending == Outcome::Delivered {
                continue;
            }
            let at = wall.minus(HOUR * (hours - 3 * number));
            let ended = Ended {
                at,
                domain: domain.clone(),
                source: source.to_string(),
                operation: operation.map(str::to_owned),
                ending,
                reason: reason.to_owned(),
            };
            handshake::end(tx, &ended, source, at)?;
        }
    }
    Ok(())
}

/// A number below `of` that looks random and is the same at each start.
fn chance(license: u32, what: u32, of: u32) -> u32 {
    let [a, b, c, d, ..] = secret::sha256(format!("{license}/{what}").as_bytes());
    u32::from_be_bytes([a, b, c, d]) % of.max(1)
}

/// The `number`th of `all`, round and round.
fn one_of<T: Copy + Default>(all: &[T], number: u32) -> T {
    let mut round = all.iter().cycle().skip(number as usize);
    round.next().copied().unwrap_or_default()
}

fn device(license: &License, number: u32) -> String {
    let id = u32::try_from(license.id.0).unwrap_or(0);
    let name = one_of(&["desk", "laptop", "studio", "office"], id + number);
    format!("{name}-{}", license.id.0 * 10 + i64::from(number))
}

/// Sessions of the last days on one license: on most days one or two, at working hours; how many.
fn a_month(tx: &Tx<'_>, license: &License, number: u32, now: Now) -> Result<u32> {
    let (live, current) = (
        Arc::new(LiveSessions::new(UnixMs(0), Pauses::default())),
        ProgramSettingsCache::default(),
    );
    let midnight = UnixMs(now.wall.0 - now.wall.0.rem_euclid(86_400_000));
    let mut count = 0;
    let mut tick = Tick::START;
    for day in (1..=DAYS).rev() {
        for round in 0..chance(number, day, 3) {
            let minute = 7 * 60 + 300 * round + chance(number, 100 * day + round, 200);
            let began = midnight.minus(DAY * day).plus_s(60 * minute);
            let length = 20 + chance(number, 1000 * day + round, 270);
            if began < license.valid_from || license.valid_until.is_some_and(|end| end < began) {
                continue;
            }
            let devices = license.device_limit.min(3);
            let claim = ClientIdentity {
                license_key: Some(license.key),
                machine_id: device(license, chance(number, 7 * day + round, devices)),
                hardware_id: format!(
                    "sample-{}",
                    device(license, chance(number, 7 * day + round, devices))
                ),
                version: Version::new(1, if day > 20 { 1 } else { 2 }, 0),
            };
            tick = Tick(tick.0 + HOUR);
            let how = chance(number, 31 * day + round, 12);
            one_session(
                tx,
                (&live, &current),
                claim,
                Now {
                    wall: began,
                    tick,
                    awake: tick.0,
                },
                (length, how),
            )?;
            count += 1;
        }
    }
    Ok(count)
}

/// A session that began then; one of twelve falls silent, which the next start notices.
fn one_session(
    tx: &Tx<'_>,
    (live, current): (&Arc<LiveSessions>, &ProgramSettingsCache),
    claim: ClientIdentity,
    began: Now,
    (minutes, how): (u32, u32),
) -> Result<()> {
    let start = StartRequest {
        address: format!("192.0.2.{}", 10 + how),
        claim,
        idempotency_key: None,
        auto_activate: true,
        signer: None,
        quota: Quota::unlimited(),
    };
    let answer = sessions::start(tx, live, current, &start, began)?;
    if how == 0 {
        return Ok(());
    }
    let answer: Value = serde_json::from_str(&answer).doing("read an answer")?;
    let token = answer.get("session_token").and_then(Value::as_str);
    let token = token
        .and_then(SessionToken::parse)
        .ok_or_else(|| Error::not_found("session token", ""))?;
    let ended = Now {
        wall: began.wall.plus_s(60 * minutes),
        ..began
    };
    sessions::end(tx, live, &token, &GivenKey::None, ended).map(drop)
}
