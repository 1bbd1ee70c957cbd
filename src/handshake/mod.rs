//! The domain handshake: a license may be bound to a domain, and a site proves its identity by responding at
//! that domain. There are four messages:
//!
//! 1. request: the site names its domain and a request id;
//! 2. challenge: the server calls the domain with the request id and a new transaction id;
//! 3. transaction: the site returns the transaction id and names an operation;
//! 4. delivery: the server calls the same domain with the result.
//!
//! The responses to messages 1 and 3 carry no information, and an error ends the handshake without an explanation, so
//! that callers who do not control the domain learn nothing.

mod live;
pub mod panel;
mod rules;
pub mod site;
mod store;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

pub use rules::{Id, Operation};

use crate::audit::{Act, Actor, Change};
use crate::clock::{Now, TrustedClock, UnixMs};
use crate::db::{Db, Reader, Tx};
use crate::domain::Domain;
use crate::domains::{self, DomainBinding, Transfer, TransferGrace};
use crate::error::Result;
use crate::licenses::{self, License, LicenseKey};
use crate::net::egress::{Egress, Failure, OutboundRequest, Priority};
use crate::products::ProgramSettingsCache;
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::{Group, Limiter};
use crate::security::secret;
use crate::security::signing::Signer;
use live::{NewHandshake, OpenHandshakes, PendingChallenge, RedeemedHandshake};
use rules::Caller;

/// Pause between a response and the call that follows it, so that the response time does not reveal the call.
const DELAY_AFTER_RESPONSE: Duration = Duration::from_millis(10);
/// How long a delivery waits for the site's response to the challenge.
const CHALLENGE_MAX: Duration = Duration::from_secs(12);
/// Prefix of the failure reason of a call whose response status was not 2xx.
const STATUS_PREFIX: &str = "status_";
/// Entries kept in the handshake log.
const LOG_MAX: i64 = 1000;
/// Log entries kept for one domain.
const LOG_MAX_PER_DOMAIN: u32 = 100;
/// Networks remembered for each domain as known sources.
const KNOWN_SOURCES_MAX: u32 = 16;
/// How long a known source stays trusted after its last completed handshake.
const KNOWN_SOURCE_MAX_AGE: Duration = Duration::from_hours(30 * 24);

/// A handshake in progress.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    domain: Domain,
    source: ClientAddress,
    caller: Caller,
    /// No license in use is bound to the domain yet: the only operation allowed is to register the license whose key
    /// was in the request.
    unbound: bool,
    /// [`key_digest`] of the request's license key, if that license has a call budget of its own.
    key_digest: Option<String>,
    /// When the first message arrived.
    at: UnixMs,
}

/// The first message.
#[derive(Debug)]
pub struct Request {
    /// The domain to call.
    pub domain: Domain,
    /// Chosen by the site, which recognizes the challenge by it.
    pub request_id: Id,
    /// The license key, unparsed; `None` if the site sent none.
    pub license_key: Option<String>,
}

/// The parameters of an operation, unparsed.
#[derive(Debug, Default)]
pub struct OperationDetails {
    /// The license that the operation is about.
    pub license_key: Option<String>,
    /// The domain to unbind the license from.
    pub domain: Option<String>,
    /// The domain to transfer the license to.
    pub new_domain: Option<String>,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The site accepted the delivery.
    Delivered,
    /// The delivery failed.
    Undelivered,
    /// The challenge failed.
    Unanswered,
    /// The operation was refused.
    Refused,
    /// The site did not send the third message in time.
    Abandoned,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Delivered,
        Self::Undelivered,
        Self::Unanswered,
        Self::Refused,
        Self::Abandoned,
    ];

    /// The value in the database.
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

/// A finished handshake, as it is logged.
#[derive(Clone, Debug)]
pub struct FinishedHandshake {
    /// When the first message arrived.
    pub at: UnixMs,
    /// The domain that the request named.
    pub domain: Domain,
    /// Where the request came from.
    pub source: String,
    /// The operation; `None` if the site did not name a valid one.
    pub operation: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why the call to the site failed, as a code; empty if no call failed.
    pub reason: String,
}

/// An entry of the handshake log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// The id; newer entries have higher ids.
    pub id: i64,
    /// The finished handshake.
    pub finished: FinishedHandshake,
}

/// Runs handshakes.
pub struct Handshakes {
    open_handshakes: OpenHandshakes,
    dependencies: Dependencies,
}

/// The parts of the server that handshakes use.
pub struct Dependencies {
    /// The database.
    pub db: Db,
    /// The server's clock.
    pub trusted_clock: TrustedClock,
    /// The versions that sites may read, and the rate limit for sites.
    pub program_settings: Arc<ProgramSettingsCache>,
    /// Rate limits by source address.
    pub limiter: Arc<Limiter>,
    /// Makes the calls to sites.
    pub egress: Egress,
    /// Signs the messages to sites.
    pub signer: Arc<Signer>,
    /// The path on every site that receives the server's calls.
    pub callback_path: String,
    /// The grace period of a transfer, in which the old and the new domain are both served.
    pub grace: TransferGrace,
}

impl Handshakes {
    /// Starts without any open handshake.
    pub fn new(dependencies: Dependencies) -> Self {
        Self {
            open_handshakes: OpenHandshakes::default(),
            dependencies,
        }
    }

    /// The grace period of a transfer, in which the old and the new domain are both served.
    pub fn grace(&self) -> TransferGrace {
        self.dependencies.grace
    }

    /// Handles the first message; returns whether a challenge follows. The challenge is sent after the response.
    pub async fn request(
        self: &Arc<Self>,
        request: Request,
        source: ClientAddress,
        now: Now,
    ) -> Result<bool> {
        let Dependencies {
            db,
            program_settings,
            limiter,
            ..
        } = &self.dependencies;
        let settings = program_settings.get(db).await?;
        let within_limit = limiter.take(Group::Site, source.into(), settings.site_limit, now.tick);
        let Request {
            domain,
            request_id,
            license_key,
        } = request;
        let network = rules::client_network(source);
        let asked = domain.clone();
        // Queried even if the rate limit is exceeded, so that every response takes the same time.
        let eligibility = db
            .read(move |reader| {
                // A caller whose network is unknown is never a known source; the query runs anyway, for the same
                // reason.
                let network = network.as_deref().unwrap_or_default();
                check_request(reader, &asked, license_key.as_deref(), network, now.wall)
            })
            .await?;
        let Some(eligibility) = eligibility.filter(|_| within_limit.is_ok()) else {
            return Ok(false);
        };
        let new = NewHandshake {
            domain,
            source,
            request_id,
            eligibility,
        };
        let Some(challenge) = self.open_handshakes.open(new, now)? else {
            return Ok(false);
        };
        let this = self.clone();
        tokio::spawn(async move { this.send_challenge(challenge).await });
        Ok(true)
    }

    /// Sends the second message, which gives the transaction id to the site at the domain.
    async fn send_challenge(&self, challenge: PendingChallenge) {
        sleep(DELAY_AFTER_RESPONSE).await;
        let PendingChallenge {
            transaction_id,
            request_id,
            handshake,
            accepted,
        } = challenge;
        let body = json!({
            "step": "challenge",
            "request_id": request_id.reveal(),
            "transaction_id": transaction_id.reveal(),
        });
        let result = self.call(&handshake, &body).await;
        let tick = self.dependencies.trusted_clock.now().tick;
        if result.is_ok() {
            self.open_handshakes.mark_challenged(&transaction_id, tick);
        } else {
            // The third message may have redeemed it already; then `accepted` stops the delivery.
            self.open_handshakes.close(&transaction_id);
        }
        accepted.send_replace(Some(result.is_ok()));
        if let Err(reason) = result {
            // A site that responds with an error status is reachable.
            if !reason.starts_with(STATUS_PREFIX) {
                self.open_handshakes
                    .mark_unreachable(&handshake.domain, tick);
            }
            self.log_outcome(&handshake, None, Outcome::Unanswered, reason)
                .await;
        }
    }

    /// Handles the third message; returns whether a delivery follows. A transaction id is used up even if the
    /// operation is invalid or refused.
    pub async fn redeem(
        self: &Arc<Self>,
        id: &Id,
        operation: &str,
        details: &OperationDetails,
        now: Now,
    ) -> Result<bool> {
        let operation = Operation::parse(operation, details);
        let Some(redeemed) = self.open_handshakes.take(id, now.tick) else {
            return Ok(false);
        };
        self.open_handshakes.mark_returned(&redeemed.handshake);
        let Some(operation) = operation else {
            self.log_refusal_later(redeemed.handshake, None);
            return Ok(false);
        };
        let (asked, handshake, grace) = (
            operation.clone(),
            redeemed.handshake.clone(),
            self.dependencies.grace,
        );
        let check = move |reader: &Reader<'_>| decide(reader, &asked, &handshake, now.wall, grace);
        if self.dependencies.db.read(check).await?.is_none() {
            self.log_refusal_later(redeemed.handshake, Some(operation.word()));
            return Ok(false);
        }
        let this = self.clone();
        tokio::spawn(async move { this.deliver(redeemed, operation).await });
        Ok(true)
    }

    /// Logs a refusal after the response, so that the response time does not reveal it.
    fn log_refusal_later(self: &Arc<Self>, handshake: Handshake, operation: Option<&'static str>) {
        let this = self.clone();
        tokio::spawn(async move {
            sleep(DELAY_AFTER_RESPONSE).await;
            this.log_outcome(&handshake, operation, Outcome::Refused, String::new())
                .await;
        });
    }

    /// Runs the operation and sends the fourth message, with its result, to the domain that received the challenge. It
    /// is sent once, without a retry.
    async fn deliver(&self, redeemed: RedeemedHandshake, operation: Operation) {
        sleep(DELAY_AFTER_RESPONSE).await;
        let RedeemedHandshake {
            transaction_id,
            handshake,
            mut accepted,
        } = redeemed;
        // A site may send the third message before it has responded to the challenge.
        let accepted = timeout(CHALLENGE_MAX, accepted.wait_for(Option::is_some)).await;
        if !accepted.is_ok_and(|accepted| accepted.is_ok_and(|accepted| *accepted == Some(true))) {
            return;
        }
        let name = operation.word();
        let information = match self.run_operation(operation, handshake.clone()).await {
            Ok(Some(information)) => information,
            Ok(None) => {
                return self
                    .log_outcome(&handshake, Some(name), Outcome::Refused, String::new())
                    .await;
            }
            Err(error) => {
                log::warn!("a handshake with {} failed: {error}", handshake.domain);
                return;
            }
        };
        let body = json!({
            "step": "delivery",
            "transaction_id": transaction_id.reveal(),
            "operation": name,
            "information": information,
        });
        let (outcome, reason) = match self.call(&handshake, &body).await {
            Ok(()) => (Outcome::Delivered, String::new()),
            Err(reason) => (Outcome::Undelivered, reason),
        };
        self.log_outcome(&handshake, Some(name), outcome, reason)
            .await;
    }

    /// Runs the operation; `None` if it is refused by now.
    async fn run_operation(
        &self,
        operation: Operation,
        handshake: Handshake,
    ) -> Result<Option<Value>> {
        let (now, grace, program_settings) = (
            self.dependencies.trusted_clock.now().wall,
            self.dependencies.grace,
            self.dependencies.program_settings.clone(),
        );
        let run = move |tx: &Tx<'_>| {
            run_operation(tx, &program_settings, &operation, &handshake, now, grace)
        };
        self.dependencies.db.write("handshake.operate", run).await
    }

    /// Calls the domain of a handshake. The error is the reason as a code, for the handshake log.
    async fn call(&self, handshake: &Handshake, body: &Value) -> Result<(), String> {
        let Dependencies {
            egress,
            signer,
            trusted_clock,
            callback_path,
            ..
        } = &self.dependencies;
        let (domain, body) = (handshake.domain.as_str(), body.to_string());
        let priority = match handshake.caller {
            Caller::Trusted | Caller::Unconfirmed => Priority::High,
            Caller::UnconfirmedRetry | Caller::Untrusted => Priority::Low,
        };
        let target = egress.target(domain, callback_path);
        // The system clock: the site compares the signature's date with its own system clock.
        let keys = signer.key_pair();
        let headers = keys.post_headers(&target, &body, trusted_clock.system_date());
        match egress
            .post(
                domain,
                callback_path,
                OutboundRequest { headers, body },
                priority,
            )
            .await
        {
            Ok(200..=299) => Ok(()),
            Ok(status) => Err(format!("{STATUS_PREFIX}{status}")),
            Err(failure) => Err(Failure::word(failure).to_owned()),
        }
    }

    /// Writes the outcome to the handshake log. An error is not passed on, since it does not affect the site.
    async fn log_outcome(
        &self,
        handshake: &Handshake,
        operation: Option<&'static str>,
        outcome: Outcome,
        reason: String,
    ) {
        let finished = handshake.finished(operation, outcome, reason);
        let now = self.dependencies.trusted_clock.now().wall;
        let source = handshake.source;
        let log = move |tx: &Tx<'_>| log_finished(tx, &finished, source, now);
        if let Err(error) = self.dependencies.db.write("handshake.note", log).await {
            log::debug!("the outcome of a handshake was not recorded: {error}");
        }
    }

    /// Logs abandoned handshakes and completes transfers whose grace period has passed. Call it every few seconds.
    ///
    /// If the write fails, the transfers are completed by the next call, and only the log entries are lost.
    pub async fn sweep(&self) -> Result<()> {
        let Dependencies {
            db, trusted_clock, ..
        } = &self.dependencies;
        let now = trusted_clock.now();
        let abandoned = self.open_handshakes.sweep(now.tick);
        let ended_transfers = db
            .read(move |reader| domains::ended_transfers(reader, now.wall))
            .await?;
        if abandoned.is_empty() && ended_transfers.is_empty() {
            return Ok(());
        }
        db.write("handshake.sweep", move |tx| {
            for handshake in abandoned {
                add_to_log(
                    tx,
                    &handshake.finished(None, Outcome::Abandoned, String::new()),
                )?;
            }
            domains::end_transfers(&Act::new(tx, &Actor::server(), now.wall))
        })
        .await
    }
}

impl Handshake {
    fn finished(
        &self,
        operation: Option<&str>,
        outcome: Outcome,
        reason: String,
    ) -> FinishedHandshake {
        FinishedHandshake {
            at: self.at,
            domain: self.domain.clone(),
            source: self.source.to_string(),
            operation: operation.map(str::to_owned),
            outcome,
            reason,
        }
    }
}

/// The result of checking a request.
#[derive(Clone, Debug)]
struct Eligibility {
    caller: Caller,
    /// [`key_digest`] of the request's license key, if that license has a call budget of its own.
    key_digest: Option<String>,
    /// No license in use is bound to the domain yet.
    unbound: bool,
}

/// Checks a request; `None` if the server must not call `domain`. `network` is the caller's [`rules::client_network`],
/// or empty.
fn check_request(
    reader: &Reader<'_>,
    domain: &Domain,
    key: Option<&str>,
    network: &str,
    now: UnixMs,
) -> Result<Option<Eligibility>> {
    let by_network =
        if store::is_known_source(reader, domain, network, now.minus(KNOWN_SOURCE_MAX_AGE))? {
            Caller::Trusted
        } else {
            Caller::Untrusted
        };
    let served = domains::is_served(reader, domain, now)?;
    let Some(key) = key else {
        return Ok(served.then_some(Eligibility {
            caller: by_network,
            key_digest: None,
            unbound: false,
        }));
    };
    // An invalid key is refused even where no key is needed.
    let Some((key, license)) = usable_license(reader, LicenseKey::parse(key).as_ref(), now)? else {
        return Ok(None);
    };
    let binding = domains::binding_at(reader, license.id, now)?;
    let Some(by_key) = rules::caller_with_license(&binding, domain) else {
        return Ok(None);
    };
    // A network that completed a handshake before counts more than a license key, which anyone could send.
    let caller = if by_network == Caller::Trusted {
        by_network
    } else {
        by_key
    };
    let has_budget = !served || caller == Caller::Unconfirmed;
    Ok(Some(Eligibility {
        caller,
        key_digest: has_budget.then(|| key_digest(&key)),
        unbound: !served,
    }))
}

/// The license of `key`; `None` if the key is unknown or the license is not valid now.
fn usable_license(
    reader: &Reader<'_>,
    key: Option<&LicenseKey>,
    now: UnixMs,
) -> Result<Option<(LicenseKey, License)>> {
    let Some(key) = key else { return Ok(None) };
    let license = licenses::by_key(reader, key)?;
    let license = license.filter(|license| licenses::check_usable(license, now).is_ok());
    Ok(license.map(|license| (*key, license)))
}

/// Identifies a license in memory, where its key must not be stored.
fn key_digest(key: &LicenseKey) -> String {
    format!("key {}", secret::hex(&secret::sha256(key.as_bytes())))
}

/// When a handshake for `domain` was last completed; `None` if never.
pub fn proved_at(reader: &Reader<'_>, domain: &Domain) -> Result<Option<UnixMs>> {
    store::proved_at(reader, domain)
}

/// The license that an operation is about and its new binding; `None` if the operation is refused.
type Decision = Option<(Option<License>, DomainBinding)>;

/// Whether a site may do `operation`, and what the binding becomes. Called twice: when the third message arrives, and
/// again in the transaction that stores the result.
fn decide(
    reader: &Reader<'_>,
    operation: &Operation,
    handshake: &Handshake,
    now: UnixMs,
    grace: TransferGrace,
) -> Result<Decision> {
    if !handshake.unbound && !domains::is_served(reader, &handshake.domain, now)? {
        return Ok(None);
    }
    let Some(key) = operation.key() else {
        let binding =
            rules::binding_after(operation, handshake, &DomainBinding::default(), now, grace);
        return Ok(binding.map(|binding| (None, binding)));
    };
    // An unbound domain may only register the license whose key was in its request.
    let requested_with = handshake.key_digest.as_ref().filter(|_| handshake.unbound);
    if requested_with.is_some_and(|known| *known != key_digest(key)) {
        return Ok(None);
    }
    let Some((_, license)) = usable_license(reader, Some(key), now)? else {
        return Ok(None);
    };
    let binding = domains::binding_at(reader, license.id, now)?;
    let binding = rules::binding_after(operation, handshake, &binding, now, grace);
    Ok(binding.map(|binding| (Some(license), binding)))
}

/// Stores the result of an operation and returns the information to deliver; `None` if it is refused.
fn run_operation(
    tx: &Tx<'_>,
    program_settings: &ProgramSettingsCache,
    operation: &Operation,
    handshake: &Handshake,
    now: UnixMs,
    grace: TransferGrace,
) -> Result<Option<Value>> {
    let Some((license, binding)) = decide(tx, operation, handshake, now, grace)? else {
        return Ok(None);
    };
    let actor = Actor::Site {
        domain: handshake.domain.clone(),
        source: handshake.source,
    };
    let act = Act::new(tx, &actor, now);
    let Some(license) = license else {
        let entry = Change {
            action: operation.audit_action(),
            subject: handshake.domain.as_str(),
            before: Value::Null,
            after: Value::Null,
        };
        act.note(&entry)?;
        return Ok(Some(rules::versions(&*program_settings.read(tx)?)));
    };
    domains::set_binding(&act, license.id, &binding, operation.audit_action())?;
    Ok(Some(license_information(&license, &binding)))
}

/// The information about a license that is delivered to a site.
fn license_information(license: &License, binding: &DomainBinding) -> Value {
    json!({
        "kind": license.kind,
        "valid_from": license.valid_from.rfc3339(),
        "valid_until": license.valid_until.map(UnixMs::rfc3339),
        "domain": binding.domain,
        "transfer": binding.transfer.as_ref().map(Transfer::to_json),
    })
}

/// Logs a finished handshake; if it was delivered, remembers `source` as a known source of the domain.
pub fn log_finished(
    tx: &Tx<'_>,
    finished: &FinishedHandshake,
    source: ClientAddress,
    now: UnixMs,
) -> Result<()> {
    let network = rules::client_network(source);
    if let Some(network) = network.filter(|_| finished.outcome == Outcome::Delivered) {
        store::remember_source(tx, &finished.domain, &network, now)?;
        store::trim_sources(tx, &finished.domain, KNOWN_SOURCES_MAX)?;
    }
    add_to_log(tx, finished)
}

fn add_to_log(tx: &Tx<'_>, finished: &FinishedHandshake) -> Result<()> {
    let id = store::insert_log_entry(tx, finished)?;
    store::trim_log_of_domain(tx, &finished.domain, LOG_MAX_PER_DOMAIN)?;
    store::trim_log(tx, id.saturating_sub(LOG_MAX))
}

/// Log entries with an id below `before`, newest first; of one domain or, if `None`, of all.
pub fn log_entries(
    reader: &Reader<'_>,
    domain: Option<&Domain>,
    before: i64,
    limit: u32,
) -> Result<Vec<LogEntry>> {
    store::log_entries(reader, domain, before, limit)
}
