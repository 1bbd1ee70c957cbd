//! Sites: a license may be bound to a domain, and the domain itself is the proof. A site asks, the server
//! calls the domain, the site says what it wants, and the server sends it to that domain alone.
//!
//! The answer on the line says nothing. Whatever is wrong ends the handshake without another word.

pub mod cli;
mod live;
pub mod panel;
mod rules;
pub mod site;
mod store;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

pub use rules::{Id, Operation, Refusal};

use crate::audit::{self, Actor, Change};
use crate::client_config::ProgramSettingsCache;
use crate::clock::{Now, TrustedClock, UnixMs};
use crate::db::{Db, Reader, Tx};
use crate::domain::Domain;
use crate::error::{CHANGED_MEANWHILE, Error, Refused, Result};
use crate::id::LicenseId;
use crate::licenses::{self, License, LicenseKey, State};
use crate::security::client_address::ClientAddress;
use crate::security::egress::{Egress, Failure, OutboundRequest, Priority};
use crate::security::rate_limit::{Group, Limiter};
use crate::security::secret;
use crate::security::signing::Signer;
use live::{Challenge, NewHandshake, OpenHandshakes, Returned};
use rules::Caller;

/// After an answer, before a call: the answer goes out as if nothing followed.
const AFTER_ANSWER: Duration = Duration::from_millis(10);
/// The longest that a third message waits for the end of the challenge that it belongs to.
const CHALLENGE: Duration = Duration::from_secs(12);
/// How the word for a call begins that was answered with another status than 2xx.
const STATUS: &str = "status_";
/// Handshakes that are kept for people.
const KEPT: i64 = 1000;
/// Of one domain.
const KEPT_OF_ONE: u32 = 100;
/// Sources that are remembered for a domain, and how long.
const SOURCES: u32 = 16;
const LATELY: Duration = Duration::from_hours(30 * 24);

/// The domains of a license.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainBinding {
    /// The one that it is bound to.
    pub domain: Option<Domain>,
    /// The one that it moves to.
    pub transfer: Option<Transfer>,
}

/// A license on its way to another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Where it goes.
    pub domain: Domain,
    /// The end of the grace period; from then on only the new domain is served.
    pub until: UnixMs,
    /// When the new domain registered itself.
    pub confirmed_at: Option<UnixMs>,
}

/// A license on a domain, for people.
#[derive(Clone, Debug)]
pub struct BoundLicense {
    /// Which license.
    pub license: License,
    /// Its domains.
    pub binding: DomainBinding,
    /// When somebody last completed a handshake for the domain.
    pub proved_at: Option<UnixMs>,
}

/// Whom a handshake is with, from the first message on.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    domain: Domain,
    source: ClientAddress,
    caller: Caller,
    /// The domain has no license yet: it may register, with the license that vouches for it.
    unbound: bool,
    /// The license that was shown, where it is no proof.
    key_digest: Option<String>,
    at: UnixMs,
}

/// The first message.
#[derive(Debug)]
pub struct Request {
    /// The domain that is to be called.
    pub domain: Domain,
    /// The id by which the site knows the challenge.
    pub request_id: Id,
    /// The license key, where one was given; as typed.
    pub license_key: Option<String>,
}

/// What the third message may say beside the operation; as typed.
#[derive(Debug, Default)]
pub struct Details {
    /// The license that it is about.
    pub license_key: Option<String>,
    /// The domain that a license is to be freed from.
    pub domain: Option<String>,
    /// The domain that a license is to move to.
    pub new_domain: Option<String>,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The site has its information.
    Delivered,
    /// The site did not take its information.
    Undelivered,
    /// The site did not take the challenge.
    Unanswered,
    /// What the site wanted was not to be had.
    Refused,
    /// The site did not come back in time.
    Abandoned,
}

impl Outcome {
    /// Every ending.
    pub const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Undelivered,
        Self::Unanswered,
        Self::Refused,
        Self::Abandoned,
    ];

    /// The word in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A handshake that is over.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When the site asked.
    pub at: UnixMs,
    /// Whom it named.
    pub domain: Domain,
    /// Where the request came from.
    pub source: String,
    /// What it wanted, if it came to that.
    pub operation: Option<String>,
    /// How it ended.
    pub ending: Outcome,
    /// A word: what went wrong with a call; empty otherwise.
    pub reason: String,
}

/// The same with its number.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// For the next page.
    pub id: i64,
    /// The handshake.
    pub ended: Ended,
}

/// Everything that handshakes need, and those that are under way.
pub struct Handshakes {
    live: OpenHandshakes,
    parts: Parts,
}

/// What handshakes are put together from.
pub struct Parts {
    /// The file.
    pub db: Db,
    /// The date.
    pub calendar: TrustedClock,
    /// What sites are told of versions, and how often they may ask.
    pub current: Arc<ProgramSettingsCache>,
    /// Who asked how often.
    pub limiter: Arc<Limiter>,
    /// The way out.
    pub egress: Egress,
    /// What messages are signed with.
    pub signer: Arc<Signer>,
    /// Where sites take their callbacks.
    pub callback_path: String,
    /// How long both domains of a transfer are served.
    pub grace: Duration,
}

impl Handshakes {
    /// No handshake is under way yet.
    pub fn new(parts: Parts) -> Self {
        let live = OpenHandshakes::default();
        Self { live, parts }
    }

    /// How long both domains of a transfer are served.
    pub fn grace(&self) -> Duration {
        self.parts.grace
    }

    /// Takes the first message: whether a callback follows. It is started only after the answer.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn ask(
        self: &Arc<Self>,
        request: Request,
        source: ClientAddress,
        now: Now,
    ) -> Result<bool> {
        let Parts {
            db,
            current,
            limiter,
            ..
        } = &self.parts;
        let settings = current.get(db).await?;
        let left = limiter.take(Group::Site, source.into(), settings.site_limit, now.tick);
        let Request {
            domain,
            request_id,
            license_key,
        } = request;
        let place = rules::client_network(source);
        let named = domain.clone();
        // Whether or not there is a call left: every answer has cost the same.
        let standing = db
            .read(move |reader| {
                // What has no name is never remembered; the look costs the same.
                let place = place.as_deref().unwrap_or_default();
                standing(reader, &named, license_key.as_deref(), place, now.wall)
            })
            .await?;
        let Some(standing) = standing.filter(|_| left.is_ok()) else {
            return Ok(false);
        };
        let wish = NewHandshake {
            domain,
            source,
            request_id,
            standing,
        };
        let Some(challenge) = self.live.open(wish, now)? else {
            return Ok(false);
        };
        let this = self.clone();
        tokio::spawn(async move { this.challenge(challenge).await });
        Ok(true)
    }

    /// The second message: whoever answers for the domain learns the transaction id.
    async fn challenge(&self, challenge: Challenge) {
        sleep(AFTER_ANSWER).await;
        let Challenge {
            transaction_id,
            request_id,
            visit,
            taken,
        } = challenge;
        let body = json!({
            "step": "challenge",
            "request_id": request_id.reveal(),
            "transaction_id": transaction_id.reveal(),
        });
        let called = self.call(&visit, &body).await;
        let tick = self.parts.calendar.now().tick;
        if called.is_ok() {
            self.live.challenged(&transaction_id, tick);
        } else {
            // It may be gone already: then whoever took it learns from `taken` that it is worth nothing.
            self.live.close(&transaction_id);
        }
        taken.send_replace(Some(called.is_ok()));
        if let Err(reason) = called {
            // A status is an answer, too.
            if !reason.starts_with(STATUS) {
                self.live.unreachable(&visit.domain, tick);
            }
            self.over(&visit, None, Outcome::Unanswered, reason).await;
        }
    }

    /// Takes the third message: whether a delivery follows. An id serves once, whatever comes with it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn redeem(
        self: &Arc<Self>,
        id: &Id,
        operation: &str,
        details: &Details,
        now: Now,
    ) -> Result<bool> {
        let operation = Operation::of(operation, details);
        let Some(returned) = self.live.take(id, now.tick) else {
            return Ok(false);
        };
        self.live.came_back(&returned.visit);
        let Some(operation) = operation else {
            self.refuse_later(returned.visit, None);
            return Ok(false);
        };
        let (wanted, visit, grace) = (operation.clone(), returned.visit.clone(), self.parts.grace);
        let look = move |reader: &Reader<'_>| decide(reader, &wanted, &visit, now.wall, grace);
        if self.parts.db.read(look).await?.is_none() {
            self.refuse_later(returned.visit, Some(operation.word()));
            return Ok(false);
        }
        let this = self.clone();
        tokio::spawn(async move { this.deliver(returned, operation).await });
        Ok(true)
    }

    fn refuse_later(self: &Arc<Self>, visit: Handshake, operation: Option<&'static str>) {
        let this = self.clone();
        tokio::spawn(async move {
            sleep(AFTER_ANSWER).await;
            this.over(&visit, operation, Outcome::Refused, String::new())
                .await;
        });
    }

    /// The fourth message: the information, to the domain that was called before, once.
    async fn deliver(&self, returned: Returned, operation: Operation) {
        sleep(AFTER_ANSWER).await;
        let Returned {
            transaction_id,
            visit,
            mut taken,
        } = returned;
        // The site may be quicker with its third message than with its answer to the second.
        let taken = timeout(CHALLENGE, taken.wait_for(Option::is_some)).await;
        if !taken.is_ok_and(|taken| taken.is_ok_and(|taken| *taken == Some(true))) {
            return;
        }
        let word = operation.word();
        let information = match self.operate(operation, visit.clone()).await {
            Ok(Some(information)) => information,
            Ok(None) => {
                return self
                    .over(&visit, Some(word), Outcome::Refused, String::new())
                    .await;
            }
            Err(error) => {
                log::warn!("a handshake with {} was broken off: {error}", visit.domain);
                return;
            }
        };
        let body = json!({
            "step": "delivery",
            "transaction_id": transaction_id.reveal(),
            "operation": word,
            "information": information,
        });
        let (ending, reason) = match self.call(&visit, &body).await {
            Ok(()) => (Outcome::Delivered, String::new()),
            Err(reason) => (Outcome::Undelivered, reason),
        };
        self.over(&visit, Some(word), ending, reason).await;
    }

    /// Does what was asked for; none where it is not to be had any more.
    async fn operate(&self, operation: Operation, visit: Handshake) -> Result<Option<Value>> {
        let (now, grace, current) = (
            self.parts.calendar.now().wall,
            self.parts.grace,
            self.parts.current.clone(),
        );
        let work = move |tx: &Tx<'_>| operate(tx, &current, &operation, &visit, now, grace);
        self.parts.db.write("handshake.operate", work).await
    }

    /// Calls a domain. The error is a word that says why it did not take the message.
    async fn call(&self, visit: &Handshake, body: &Value) -> Result<(), String> {
        let Parts {
            egress,
            signer,
            calendar,
            callback_path,
            ..
        } = &self.parts;
        let (domain, body) = (visit.domain.as_str(), body.to_string());
        let share = match visit.caller {
            Caller::Known | Caller::Vouched => Priority::Whole,
            Caller::VouchedAgain | Caller::Stranger => Priority::Half,
        };
        let target = egress.target(domain, callback_path);
        // By the machine's date: the site judges it by its own.
        let keys = signer.keys();
        let headers = keys.signed_post(&target, &body, calendar.machine());
        match egress
            .post(
                domain,
                callback_path,
                OutboundRequest { headers, body },
                share,
            )
            .await
        {
            Ok(200..=299) => Ok(()),
            Ok(status) => Err(format!("{STATUS}{status}")),
            Err(failure) => Err(Failure::word(failure).to_owned()),
        }
    }

    /// Writes down how a handshake ended. That this fails changes nothing for the site.
    async fn over(
        &self,
        visit: &Handshake,
        operation: Option<&'static str>,
        ending: Outcome,
        reason: String,
    ) {
        let ended = visit.ended(operation, ending, reason);
        let now = self.parts.calendar.now().wall;
        let source = visit.source;
        let work = move |tx: &Tx<'_>| end(tx, &ended, source, now);
        if let Err(error) = self.parts.db.write("handshake.note", work).await {
            log::debug!("how a handshake ended is not in the file: {error}");
        }
    }

    /// Forgets handshakes that came to nothing, and completes transfers whose grace period has passed.
    /// Call it every few seconds.
    ///
    /// # Errors
    /// When SQLite fails; what was not written then is written at the next turn, or lost for people only.
    pub async fn sweep(&self) -> Result<()> {
        let Parts { db, calendar, .. } = &self.parts;
        let now = calendar.now();
        let gone = self.live.sweep(now.tick);
        let ended = db
            .read(move |reader| store::ended_transfers(reader, now.wall))
            .await?;
        if gone.is_empty() && ended.is_empty() {
            return Ok(());
        }
        db.write("handshake.sweep", move |tx| {
            for visit in gone {
                note(tx, &visit.ended(None, Outcome::Abandoned, String::new()))?;
            }
            end_transfers(tx, now.wall)
        })
        .await
    }
}

impl Handshake {
    fn ended(&self, operation: Option<&str>, ending: Outcome, reason: String) -> Ended {
        Ended {
            at: self.at,
            domain: self.domain.clone(),
            source: self.source.to_string(),
            operation: operation.map(str::to_owned),
            ending,
            reason,
        }
    }
}

/// As what a caller asks for a domain.
#[derive(Clone, Debug)]
struct Standing {
    caller: Caller,
    /// The license that was shown, where it is no proof: it has budgets of its own.
    key_digest: Option<String>,
    /// The domain has no license yet.
    unbound: bool,
}

/// As what somebody asks for `domain`; `None` where it is not to be called.
fn standing(
    reader: &Reader<'_>,
    domain: &Domain,
    key: Option<&str>,
    place: &str,
    now: UnixMs,
) -> Result<Option<Standing>> {
    let by_place = if store::known(reader, domain, place, now.minus(LATELY))? {
        Caller::Known
    } else {
        Caller::Stranger
    };
    let served = is_served(reader, domain, now)?;
    let Some(key) = key else {
        return Ok(served.then_some(Standing {
            caller: by_place,
            key_digest: None,
            unbound: false,
        }));
    };
    // One that is given must be right, needed or not.
    let Some((key, license)) = in_use(reader, LicenseKey::parse(key).as_ref(), now)? else {
        return Ok(None);
    };
    let binding = binding_at(reader, license.id, now)?;
    let Some(by_key) = rules::shown(&binding, domain) else {
        return Ok(None);
    };
    // Any license could be shown: known is who was here before.
    let caller = if by_place == Caller::Known {
        by_place
    } else {
        by_key
    };
    let has_budget = !served || caller == Caller::Vouched;
    Ok(Some(Standing {
        caller,
        key_digest: has_budget.then(|| key_digest(&key)),
        unbound: !served,
    }))
}

/// The license of `key`, if it is in use.
fn in_use(
    reader: &Reader<'_>,
    key: Option<&LicenseKey>,
    now: UnixMs,
) -> Result<Option<(LicenseKey, License)>> {
    let Some(key) = key else { return Ok(None) };
    let license = licenses::by_key(reader, key)?;
    let license = license.filter(|license| licenses::standing(license, now).is_ok());
    Ok(license.map(|license| (*key, license)))
}

/// Names a license where its key must not stand.
fn key_digest(key: &LicenseKey) -> String {
    format!("key {}", secret::hex(&secret::sha256(key.as_bytes())))
}

/// Whether some license in use is bound to `domain`.
fn is_served(reader: &Reader<'_>, domain: &Domain, now: UnixMs) -> Result<bool> {
    store::is_served(reader, domain, now)
}

/// The domains of a license, as the file has them.
fn binding(reader: &Reader<'_>, id: LicenseId) -> Result<DomainBinding> {
    store::binding(reader, id)?.ok_or_else(|| Error::not_found("license", id))
}

/// The domains of a license at `now`: a move whose time has passed is over, also where nobody wrote it down
/// yet.
///
/// # Errors
/// [`Error::NotFound`] when there is no such license.
pub fn binding_at(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<DomainBinding> {
    Ok(binding(reader, id)?.at(now))
}

/// When somebody last completed a handshake for `domain`.
///
/// # Errors
/// When SQLite fails.
pub fn proved_at(reader: &Reader<'_>, domain: &Domain) -> Result<Option<UnixMs>> {
    store::proved_at(reader, domain)
}

/// Licenses on domains, by domain: those that come after `after`, a domain and a number, and in whose
/// domains or customer `search` occurs.
///
/// # Errors
/// When SQLite fails.
pub fn bound(
    reader: &Reader<'_>,
    search: &str,
    after: (&str, LicenseId),
    limit: u32,
) -> Result<Vec<BoundLicense>> {
    whole(reader, store::bound(reader, search, after, limit)?)
}

/// Licenses on their way to another domain, the next to arrive first.
///
/// # Errors
/// When SQLite fails.
pub fn moving(reader: &Reader<'_>, limit: u32) -> Result<Vec<BoundLicense>> {
    whole(reader, store::moving(reader, limit)?)
}

/// How many licenses are on a domain.
///
/// # Errors
/// When SQLite fails.
pub fn count(reader: &Reader<'_>) -> Result<u32> {
    store::count(reader)
}

fn whole(reader: &Reader<'_>, rows: Vec<store::Row>) -> Result<Vec<BoundLicense>> {
    rows.into_iter()
        .map(|(id, binding, proved_at)| {
            let license = licenses::find(reader, id)?;
            Ok(BoundLicense {
                license,
                binding,
                proved_at,
            })
        })
        .collect()
}

/// The license that an operation is about, and what would become of its domains; none where it is refused.
type Decision = Option<(Option<License>, DomainBinding)>;

fn decide(
    reader: &Reader<'_>,
    operation: &Operation,
    visit: &Handshake,
    now: UnixMs,
    grace: Duration,
) -> Result<Decision> {
    if !visit.unbound && !is_served(reader, &visit.domain, now)? {
        return Ok(None);
    }
    let Some(key) = operation.key() else {
        let binding = rules::judge(operation, visit, &DomainBinding::default(), now, grace);
        return Ok(binding.map(|binding| (None, binding)));
    };
    let vouching = visit.key_digest.as_ref().filter(|_| visit.unbound);
    if vouching.is_some_and(|known| *known != key_digest(key)) {
        return Ok(None);
    }
    let Some((_, license)) = in_use(reader, Some(key), now)? else {
        return Ok(None);
    };
    let binding = binding_at(reader, license.id, now)?;
    let binding = rules::judge(operation, visit, &binding, now, grace);
    Ok(binding.map(|binding| (Some(license), binding)))
}

fn operate(
    tx: &Tx<'_>,
    current: &ProgramSettingsCache,
    operation: &Operation,
    visit: &Handshake,
    now: UnixMs,
    grace: Duration,
) -> Result<Option<Value>> {
    let Some((license, binding)) = decide(tx, operation, visit, now, grace)? else {
        return Ok(None);
    };
    let actor = Actor::site(&visit.domain, visit.source);
    let Some(license) = license else {
        let deed = Change {
            what: operation.deed(),
            subject: visit.domain.as_str(),
            before: Value::Null,
            after: Value::Null,
        };
        audit::note(tx, now, &actor, &deed)?;
        return Ok(Some(rules::versions(&*current.read(tx)?)));
    };
    change(tx, &license, &binding, operation.deed(), &actor, now)?;
    Ok(Some(information(&license, &binding)))
}

/// Gives a license its new domains, and says so.
fn change(
    tx: &Tx<'_>,
    license: &License,
    new: &DomainBinding,
    what: &'static str,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let old = binding(tx, license.id)?;
    let changed = old != *new;
    if changed {
        store::set_binding(tx, license.id, new)?;
        tx.invalidate_caches();
    }
    let subject = license.id.to_string();
    let deed = Change {
        what,
        subject: &subject,
        before: if changed { noted(&old) } else { Value::Null },
        after: noted(new),
    };
    audit::note(tx, now, actor, &deed)
}

/// The domains of a license, for the audit log: each fact by itself, so that a change names only what it is.
fn noted(binding: &DomainBinding) -> Value {
    let transfer = binding.transfer.as_ref();
    json!({
        "domain": binding.domain,
        "moves_to": transfer.map(|transfer| &transfer.domain),
        "until": transfer.map(|transfer| transfer.until.rfc3339()),
        "confirmed_at": transfer.and_then(|transfer| transfer.confirmed_at.map(UnixMs::rfc3339)),
    })
}

/// What a question about the domains of a license was made from: others have another digest.
pub fn state(binding: &DomainBinding) -> String {
    secret::digest_of(&noted(binding))
}

/// The domains of a license, for scripts.
pub fn facts(binding: &DomainBinding) -> Value {
    json!({ "domain": binding.domain, "transfer": transfer(binding) })
}

fn transfer(binding: &DomainBinding) -> Value {
    binding.transfer.as_ref().map_or(
        Value::Null,
        |transfer| json!({ "target": transfer.domain, "until": transfer.until.rfc3339() }),
    )
}

/// What a site is told of a license.
fn information(license: &License, binding: &DomainBinding) -> Value {
    json!({
        "kind": license.kind,
        "valid_from": license.valid_from.rfc3339(),
        "valid_until": license.valid_until.map(UnixMs::rfc3339),
        "domain": binding.domain,
        "transfer": transfer(binding),
    })
}

/// Writes down how a handshake ended, and remembers `source` if it came to its end.
///
/// # Errors
/// When SQLite fails.
pub fn end(tx: &Tx<'_>, ended: &Ended, source: ClientAddress, now: UnixMs) -> Result<()> {
    let place = rules::client_network(source);
    if let Some(place) = place.filter(|_| ended.ending == Outcome::Delivered) {
        store::remember(tx, &ended.domain, &place, now)?;
        store::forget(tx, &ended.domain, SOURCES)?;
    }
    note(tx, ended)
}

fn note(tx: &Tx<'_>, ended: &Ended) -> Result<()> {
    let id = store::note(tx, ended)?;
    store::trim_domain(tx, &ended.domain, KEPT_OF_ONE)?;
    store::trim(tx, id.saturating_sub(KEPT))
}

/// Completes every transfer whose grace period has passed.
///
/// # Errors
/// When SQLite fails.
pub fn end_transfers(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    for id in store::ended_transfers(tx, now)? {
        let (license, binding) = (licenses::find(tx, id)?, binding(tx, id)?.at(now));
        change(
            tx,
            &license,
            &binding,
            "handshake.end_transfer",
            &Actor::server(),
            now,
        )?;
    }
    Ok(())
}

/// The last handshakes before the one of number `before`, newest first; of one domain, or of all.
///
/// # Errors
/// When SQLite fails.
pub fn last(
    reader: &Reader<'_>,
    domain: Option<&Domain>,
    before: i64,
    limit: u32,
) -> Result<Vec<LogEntry>> {
    store::last(reader, domain, before, limit)
}

/// What an administrator does to the domain of a license.
#[derive(Clone, Debug)]
pub enum BindingChange {
    /// Binds it, where it has no domain.
    Bind(Domain),
    /// Frees it from every domain.
    Free,
    /// Starts its move.
    Transfer(Domain),
    /// Calls the move off.
    CancelTransfer,
}

/// Changes the domain of a license, as long as nobody else has since `seen` was taken: its [`state`].
///
/// # Errors
/// `changed_meanwhile`, and those of [`set_domain`].
pub fn set_domain_seen(
    tx: &Tx<'_>,
    id: LicenseId,
    (wish, seen): (&BindingChange, &str),
    grace: Duration,
    actor: &Actor,
    now: UnixMs,
) -> Result<DomainBinding> {
    if state(&binding_at(tx, id, now)?) != seen {
        return Err(Refused::plain(CHANGED_MEANWHILE).into());
    }
    set_domain(tx, id, wish, grace, actor, now)
}

/// Changes the domain of a license. One that was revoked can only be freed.
///
/// # Errors
/// A [`Refusal`] where it does not fit, [`Error::NotFound`] when there is no such license.
pub fn set_domain(
    tx: &Tx<'_>,
    id: LicenseId,
    wish: &BindingChange,
    grace: Duration,
    actor: &Actor,
    now: UnixMs,
) -> Result<DomainBinding> {
    let (license, binding) = (licenses::find(tx, id)?, binding_at(tx, id, now)?);
    let placed = matches!(wish, BindingChange::Bind(_) | BindingChange::Transfer(_));
    if placed && license.state == State::Revoked {
        return Err(Refused::plain("license_revoked").into());
    }
    let only = |domain: &Domain| DomainBinding {
        domain: Some(domain.clone()),
        transfer: None,
    };
    let (what, new) = match wish {
        BindingChange::Bind(domain) if binding.domain.is_none() || binding == only(domain) => {
            ("handshake.bind", only(domain))
        }
        BindingChange::Bind(_) => return Err(Refusal::DomainBound.into()),
        BindingChange::Free if binding.domain.is_some() => {
            ("handshake.free", DomainBinding::default())
        }
        BindingChange::Free => return Err(Refusal::NoDomain.into()),
        BindingChange::Transfer(_) if binding.domain.is_none() => {
            return Err(Refusal::NoDomain.into());
        }
        BindingChange::Transfer(to) => {
            let started = rules::start_transfer(binding, to, now, grace);
            (
                "handshake.transfer",
                started.ok_or(Refusal::TransferImpossible)?,
            )
        }
        BindingChange::CancelTransfer => {
            let stays = rules::stay(binding);
            (
                "handshake.cancel_transfer",
                stays.ok_or(Refusal::NoTransfer)?,
            )
        }
    };
    change(tx, &license, &new, what, actor, now)?;
    Ok(new)
}
