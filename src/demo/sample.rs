//! The demo's sample data: customers, licenses in every state, releases, flags, and a month of sessions, created
//! through the same operations as real data, with past dates.

use std::sync::Arc;
use std::time::Duration;

use super::phrase::{Phrase, phrase};
use super::{HEARTBEAT_S, TIMEOUT_S, plans, set_intervals};
use crate::admins::{self, Role};
use crate::audit::{Act, Actor};
use crate::clock::{Now, Pauses, Tick, UnixMs};
use crate::config::Language;
use crate::customers::CustomerData;
use crate::db::Tx;
use crate::devices::ClientIdentity;
use crate::domain::Domain;
use crate::domains::{self, BindingChange, TransferGrace};
use crate::error::{Error, Resource, Result};
use crate::flags::{self, FlagChange};
use crate::handshake::{self, FinishedHandshake, Outcome};
use crate::id::{LicenseId, ProductId};
use crate::licenses::{self, Buyer, Kind, License, Order, Term};
use crate::live_sessions::LiveSessions;
use crate::products::{self, ProductSettings, ProgramSettingsCache};
use crate::releases::{self, Release};
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::Quota;
use crate::security::secret;
use crate::sessions::{self, EndRequest, GivenKey, StartRequest};
use crate::version::Version;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Days of history.
const DAYS: u32 = 30;
/// Number of background programs.
const RUNNING: usize = 11;

const NO_NOTE: Phrase = ("", "");

/// Name, mail, company, note.
const CUSTOMERS: &[(&str, &str, &str, Phrase)] = &[
    (
        "Ada Lovelace",
        "ada@example.org",
        "Analytical Engines Ltd",
        ("Pays by invoice.", "Zahlt auf Rechnung."),
    ),
    (
        "Konrad Zuse",
        "konrad@example.org",
        "Zuse Apparatebau",
        NO_NOTE,
    ),
    (
        "Grace Hopper",
        "grace@example.org",
        "",
        ("Found the moth.", "Hat die Motte gefunden."),
    ),
    (
        "Studio Nordlicht",
        "post@nordlicht.example",
        "Studio Nordlicht GmbH",
        (
            "Invoice to the accounting department.",
            "Rechnung an die Buchhaltung.",
        ),
    ),
    ("Käthe Weiß", "kaethe@example.org", "Weiß & Söhne", NO_NOTE),
    (
        "Bäckerei Grünewald",
        "info@gruenewald.example",
        "Bäckerei Grünewald KG",
        ("Till and bakehouse.", "Kasse und Backstube."),
    ),
    (
        "Ottawa Transit",
        "it@transit.example",
        "Ottawa Transit",
        ("Twenty dispatch desks.", "Zwanzig Leitstände."),
    ),
    (
        "Fjord Media",
        "hei@fjord.example",
        "Fjord Media AS",
        NO_NOTE,
    ),
    (
        "Kessler & Söhne",
        "kontakt@kessler.example",
        "Kessler & Söhne OHG",
        (
            "New customer, not installed yet.",
            "Neukunde, noch nicht installiert.",
        ),
    ),
    (
        "Quasar Labs",
        "licenses@quasar.example",
        "Quasar Labs Inc.",
        NO_NOTE,
    ),
    (
        "Lumen Press",
        "hello@lumen.example",
        "Lumen Press",
        (
            "Wants to decide by the end of the month.",
            "Will sich bis Monatsende entscheiden.",
        ),
    ),
    (
        "Emmy Noether",
        "emmy@example.org",
        "Institut für Symmetrie",
        ("License for teaching.", "Lehrlizenz."),
    ),
];

/// The owner account.
pub(super) struct Owner {
    pub(super) name: &'static str,
    pub(super) password_hash: String,
    /// The language of everything that the demo writes.
    pub(super) language: Language,
}

/// What the sample database contains.
pub(super) struct Sample {
    pub(super) api_key: String,
    pub(super) customers: usize,
    pub(super) licenses: usize,
    pub(super) history: usize,
    /// The key that two programs compete for.
    pub(super) contested_key: String,
    /// License key and device of each background program.
    pub(super) to_run: Vec<(String, String)>,
}

/// Fills an empty database.
pub(super) fn fill(tx: &Tx<'_>, owner: &Owner, now: Now) -> Result<Sample> {
    let actor = Actor::Demo;
    let now_wall = now.wall;
    let config = add_product(&Act::new(tx, &actor, now_wall), owner, now)?;
    plans::add(&Act::new(tx, &actor, now_wall), owner.language)?;
    let licenses = issue_licenses(&Act::new(tx, &actor, now_wall), owner.language)?;
    let contested_key = licenses
        .first()
        .ok_or_else(|| Error::not_found(Resource::License, ""))?
        .key
        .formatted();
    let mut history = 0;
    let in_use: Vec<&License> = licenses
        .iter()
        .skip(1)
        .filter(|license| !is_spare(license))
        .collect();
    for (number, license) in (1..).zip(&in_use) {
        history += add_history(tx, license, number, now)?;
    }
    suspend_and_revoke_some(tx, &in_use, &actor, now_wall)?;
    let on_domains = licenses.iter().filter(|license| license.domain.is_some());
    add_handshakes(tx, &on_domains.collect::<Vec<_>>(), &actor, now_wall)?;
    let trials = plans::start_trials(tx, &actor, now)?;
    Ok(Sample {
        api_key: config.api_key.reveal().clone(),
        customers: CUSTOMERS.len(),
        licenses: licenses.len() + trials,
        history,
        contested_key,
        to_run: to_run(&in_use, now_wall),
    })
}

/// Adds the owner, and the product with its releases and flags.
fn add_product(act: &Act<'_>, owner: &Owner, now: Now) -> Result<ProductSettings> {
    admins::add(act, owner.name, Role::Owner, &owner.password_hash)?;
    let pairs = [
        ("client_name", "Nordlicht Studio"),
        ("current_version", "1.2.0"),
        ("minimum_version", "1.0.0"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    products::set(act, ProductId::FIRST, &pairs, None)?;
    let config = set_intervals(act.tx, HEARTBEAT_S, TIMEOUT_S, now)?;
    add_releases(act, owner.language)?;
    add_flags(act, owner.language)?;
    Ok(config)
}

/// License key and device of each background program.
fn to_run(in_use: &[&License], now_wall: UnixMs) -> Vec<(String, String)> {
    let newest_first = in_use.iter().rev();
    let valid = newest_first.filter(|license| license.valid_until.is_none_or(|end| end > now_wall));
    let to_run = valid.take(RUNNING);
    to_run
        .map(|license| (license.key.formatted(), device(license, 0)))
        .collect()
}

/// Version, how many days ago it was released, channel, and notes.
const RELEASES: &[(Version, u32, &str, Phrase)] = &[
    (
        Version::new(1, 0, 0),
        190,
        "stable",
        ("The first one.", "Die erste."),
    ),
    (
        Version::new(1, 1, 0),
        120,
        "stable",
        ("Opens files faster.", "Öffnet Dateien schneller."),
    ),
    (
        Version::new(1, 1, 1),
        95,
        "stable",
        ("Fixes printing on A3.", "Druckt A3 wieder richtig."),
    ),
    (
        Version::new(1, 2, 0),
        20,
        "stable",
        (
            "Dark mode. Fewer clicks.",
            "Dunkles Design. Weniger Klicks.",
        ),
    ),
    (
        Version::new(1, 3, 0),
        2,
        "beta",
        (
            "Tables, for those who want to try them.",
            "Tabellen, zum Ausprobieren.",
        ),
    ),
];

fn add_releases(act: &Act<'_>, language: Language) -> Result<()> {
    for (version, days, channel, notes) in RELEASES {
        let release = Release {
            version: *version,
            channel: (*channel).to_owned(),
            notes: phrase(language, *notes).to_owned(),
            download_url: Some(format!(
                "https://downloads.example.org/nordlicht-{version}.zip"
            )),
            sha256: Some(secret::hex(&secret::sha256(version.to_string().as_bytes()))),
            state: releases::ReleaseState::Released,
            released_at: act.now.minus(DAY * *days),
        };
        let act = Act::new(act.tx, act.actor, release.released_at);
        releases::add(&act, ProductId::FIRST, &release)?;
    }
    Ok(())
}

fn add_flags(act: &Act<'_>, language: Language) -> Result<()> {
    for (name, share, description) in [
        (
            "dark_mode",
            50,
            (
                "Half of the licenses see it.",
                "Die Hälfte der Lizenzen sieht es.",
            ),
        ),
        ("new_export", 10, ("A first few.", "Die ersten paar.")),
    ] {
        let change = FlagChange {
            enabled: Some(true),
            share_percent: Some(share),
            description: Some(phrase(language, description).to_owned()),
        };
        flags::set(act, ProductId::FIRST, name, &change)?;
    }
    Ok(())
}

fn customer_data(
    (name, email, company, note): &(&str, &str, &str, Phrase),
    language: Language,
) -> CustomerData {
    CustomerData {
        name: (*name).to_owned(),
        email: (*email).to_owned(),
        company: (*company).to_owned(),
        note: phrase(language, *note).to_owned(),
    }
}

/// Two licenses for each customer, of many kinds and lengths.
fn issue_licenses(act: &Act<'_>, language: Language) -> Result<Vec<License>> {
    let Act {
        tx,
        actor,
        now: now_wall,
    } = *act;
    let mut licenses = Vec::new();
    for (number, sample) in (0_u32..).zip(CUSTOMERS) {
        let sold = now_wall.minus(DAY * (340 - 25 * number));
        let order = Order {
            term: if number % 3 == 1 {
                Term::Until(now_wall.plus(DAY * (6 + 9 * number)))
            } else {
                Term::Default
            },
            domain: (number % 5 == 3).then(|| format!("www.customer-{number}.example")),
            ..Order::one(ProductId::FIRST, cycle(&[3, 1, 5, 2, 10, 20], number))
        };
        let first = licenses::sell(
            &Act::new(tx, actor, sold),
            &Buyer::New(customer_data(sample, language)),
            &order,
        )?;
        let buyer = first
            .first()
            .and_then(|license| license.customer_id)
            .map(Buyer::Known);
        licenses.extend(first);
        let (order, sold) = second_order(number, sold, now_wall, language);
        if let Some(buyer) = buyer {
            licenses.extend(licenses::sell(&Act::new(tx, actor, sold), &buyer, &order)?);
        }
    }
    Ok(licenses)
}

/// The second order of the customer `number`, and when it was placed: the first one at `first`.
fn second_order(
    number: u32,
    first: UnixMs,
    now_wall: UnixMs,
    language: Language,
) -> (Order, UnixMs) {
    let is_trial = number % 4 == 2;
    let note = if number == 8 {
        ("For the laptop.", "Für das Notebook.")
    } else {
        NO_NOTE
    };
    let order = Order {
        kind: if is_trial { Kind::Trial } else { Kind::Full },
        term: if number == 4 {
            Term::Until(now_wall.minus(DAY * 3))
        } else {
            Term::Default
        },
        note: phrase(language, note).to_owned(),
        ..Order::one(ProductId::FIRST, 1 + number % 3)
    };
    let at = if is_trial {
        now_wall.minus(DAY * (10 + number))
    } else {
        first
    };
    (order, at)
}

/// Whether the license belongs to the customer that has not installed the program yet.
fn is_spare(license: &License) -> bool {
    license.customer == "Kessler & Söhne"
}

fn suspend_and_revoke_some(
    tx: &Tx<'_>,
    in_use: &[&License],
    actor: &Actor,
    now_wall: UnixMs,
) -> Result<()> {
    for (index, operation) in [
        (
            2,
            licenses::suspend as fn(&Act<'_>, LicenseId) -> Result<License>,
        ),
        (9, licenses::revoke),
    ] {
        if let Some(license) = in_use.get(index) {
            operation(&Act::new(tx, actor, now_wall), license.id)?;
        }
    }
    Ok(())
}

/// Adds recent handshakes with the sites of some licenses; the first license gets a pending transfer.
fn add_handshakes(
    tx: &Tx<'_>,
    on_domains: &[&License],
    actor: &Actor,
    now_wall: UnixMs,
) -> Result<()> {
    let domains = domains_of(on_domains)?;
    if let Some((first, _)) = domains.first() {
        let to = Domain::parse("www.new-customer.example");
        let to = to.ok_or_else(|| Error::not_found(Resource::Domain, *first))?;
        let grace = TransferGrace::days(14);
        let change = BindingChange::Transfer { to, grace };
        domains::change(&Act::new(tx, actor, now_wall), *first, &change, None)?;
    }
    let source = ClientAddress::Direct([192, 0, 2, 80].into());
    for (hours, operation, outcome, reason) in [
        (70, Some("license"), Outcome::Delivered, ""),
        (46, Some("versions"), Outcome::Delivered, ""),
        (22, None, Outcome::ChallengeFailed, "status_404"),
    ] {
        for (number, (license, domain)) in (0_u32..).zip(&domains) {
            // The third site has never answered successfully.
            if number == 2 && outcome == Outcome::Delivered {
                continue;
            }
            let at = now_wall.minus(HOUR * (hours - 3 * number));
            let ended = FinishedHandshake {
                at,
                domain: domain.clone(),
                source: source.to_string(),
                license: Some(*license),
                operation: operation.map(str::to_owned),
                outcome,
                reason: reason.to_owned(),
            };
            let _not_today = handshake::log_finished(tx, &ended, source, at)?;
        }
    }
    Ok(())
}

/// The ids of these licenses, and the domains that they are bound to.
fn domains_of(licenses: &[&License]) -> Result<Vec<(LicenseId, Domain)>> {
    let domains = licenses.iter().map(|license| {
        let named = license.domain.as_deref().and_then(Domain::parse);
        let domain = named.ok_or_else(|| Error::not_found(Resource::Domain, license.id))?;
        Ok((license.id, domain))
    });
    domains.collect()
}

/// A number below `bound` that is pseudo-random but the same at each start.
fn pseudo_random(license: u32, salt: u32, bound: u32) -> u32 {
    let [a, b, c, d, ..] = secret::sha256(format!("{license}/{salt}").as_bytes());
    u32::from_be_bytes([a, b, c, d]) % bound.max(1)
}

/// The `number`th of `all`, starting again after the last.
fn cycle<T: Copy + Default>(all: &[T], number: u32) -> T {
    let mut items = all.iter().cycle().skip(number as usize);
    items.next().copied().unwrap_or_default()
}

fn device(license: &License, number: u32) -> String {
    let id = u32::try_from(license.id.0).unwrap_or(0);
    let name = cycle(&["desk", "laptop", "studio", "office"], id + number);
    format!("{name}-{}", license.id.0 * 10 + i64::from(number))
}

/// A session of the last month.
struct PastSession {
    identity: ClientIdentity,
    began: Now,
    minutes: u32,
    /// 0 to 11, for the client's address. A session with 0 is never ended and times out, which the next start detects.
    variant: u32,
}

/// The sessions of the last month on one license: on most days one or two during working hours.
fn past_sessions(license: &License, number: u32, now: Now) -> Vec<PastSession> {
    let midnight = UnixMs(now.wall.0 - now.wall.0.rem_euclid(86_400_000));
    let mut sessions = Vec::new();
    let mut tick = Tick::START;
    for day in (1..=DAYS).rev() {
        for round in 0..pseudo_random(number, day, 3) {
            let minute = 7 * 60 + 300 * round + pseudo_random(number, 100 * day + round, 200);
            let began = midnight.minus(DAY * day).plus_s(60 * minute);
            if began < license.valid_from || license.valid_until.is_some_and(|end| end < began) {
                continue;
            }
            let devices = license.device_limit.min(3);
            let device = device(license, pseudo_random(number, 7 * day + round, devices));
            tick = Tick(tick.0 + HOUR);
            sessions.push(PastSession {
                identity: ClientIdentity {
                    license_key: Some(license.key),
                    hardware_id: format!("sample-{device}"),
                    machine_id: device,
                    version: Version::new(1, if day > 20 { 1 } else { 2 }, 0),
                },
                began: Now {
                    wall: began,
                    tick,
                    awake: tick.0,
                },
                minutes: 20 + pseudo_random(number, 1000 * day + round, 270),
                variant: pseudo_random(number, 31 * day + round, 12),
            });
        }
    }
    sessions
}

/// Adds the sessions of the last month on one license, and returns their number.
fn add_history(tx: &Tx<'_>, license: &License, number: u32, now: Now) -> Result<usize> {
    let live = Arc::new(LiveSessions::new(UnixMs(0), Pauses::default()));
    let settings = Arc::new(ProgramSettingsCache::default());
    let sessions = past_sessions(license, number, now);
    let count = sessions.len();
    for session in sessions {
        add_session(tx, &live, &settings, session)?;
    }
    Ok(count)
}

/// Starts a session in the past, and ends it.
fn add_session(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    settings: &Arc<ProgramSettingsCache>,
    session: PastSession,
) -> Result<()> {
    let PastSession {
        identity,
        began,
        minutes,
        variant,
    } = session;
    let start = StartRequest {
        product: ProductId::FIRST,
        address: format!("192.0.2.{}", 10 + variant),
        client: identity,
        idempotency_key: None,
        auto_activate: true,
        quota: Quota::unlimited(),
        settings: settings.clone(),
    };
    let started = sessions::start(tx, live.at(began), &start)?;
    if variant == 0 {
        return Ok(());
    }
    let ended = Now {
        wall: began.wall.plus_s(60 * minutes),
        ..began
    };
    let request = EndRequest {
        product: ProductId::FIRST,
        token: started.token,
        key: GivenKey::NotSent,
    };
    sessions::end(tx, live.at(ended), &request).map(drop)
}
