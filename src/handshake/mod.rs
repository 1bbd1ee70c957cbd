//! The domain handshake: a license may be bound to a domain, and a site (software on a customer's website) proves its
//! identity by responding at that domain. There are four messages:
//!
//! 1. request: the site names its domain and a request id;
//! 2. challenge: the server calls the domain with the request id and a new transaction id;
//! 3. transaction: the site returns the transaction id and names an operation;
//! 4. delivery: the server calls the same domain with the result.
//!
//! The responses to messages 1 and 3 carry no information, and an error ends the handshake without an explanation, so
//! that callers who do not control the domain learn nothing.

mod budget;
mod log;
mod messages;
mod open_handshakes;
pub mod panel;
mod rules;
mod service;
pub mod site;
mod store;

use std::time::Duration;

use serde_json::Value;

pub use self::log::{FinishedHandshake, LogEntry, Outcome, log_entries, log_finished};
pub use rules::{OneTimeId, Operation};
pub use service::{Dependencies, Handshakes};

use crate::audit::{Act, Actor, Change};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::domain::Domain;
use crate::domains::{self, DomainBinding, TransferGrace};
use crate::error::Result;
use crate::id::{LicenseId, ProductId};
use crate::licenses::{self, License, LicenseKey};
use crate::products::ProgramSettingsCache;
use crate::security::client_address::ClientAddress;
use budget::Caller;
use messages::Information;

/// How long a network from which a handshake for a domain was completed counts as a known source of the domain.
const KNOWN_SOURCE_MAX_AGE: Duration = Duration::from_hours(30 * 24);

/// A handshake in progress.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    domain: Domain,
    source: ClientAddress,
    caller: Caller,
    /// Whether no usable license is bound or being transferred to the domain. If so, the only operation allowed is to
    /// register the license whose key was in the request.
    domain_is_unbound: bool,
    /// As in [`Eligibility`].
    license: Option<LicenseId>,
    budgeted_license: Option<LicenseId>,
    /// When the first message arrived.
    at: UnixMs,
}

/// The first message, in which a site requests a handshake.
#[derive(Debug)]
pub struct RequestMessage {
    /// The domain to call.
    pub domain: Domain,
    /// Chosen by the site, which recognizes the challenge by it.
    pub request_id: OneTimeId,
    /// The license key, unparsed; `None` if the site sent none.
    pub license_key: Option<String>,
}

/// An operation that a site requested in the third message, with what its checks depend on.
#[derive(Clone, Debug)]
struct SiteOperation {
    operation: Operation,
    handshake: Handshake,
    /// The grace period of the transfer that it may start.
    grace: TransferGrace,
}

/// What an operation does, if it is not refused.
#[derive(Clone, Debug)]
enum Decision {
    /// Delivers the released versions of this product.
    Versions(ProductId),
    /// Gives the license this binding, which may be the one that it already has, and delivers both.
    Binding(Box<License>, DomainBinding),
}

/// The result of checking a request: the kind of caller, and what the server's call to the domain counts against.
#[derive(Clone, Debug)]
struct Eligibility {
    caller: Caller,
    /// The license whose key was in the request. Always set if the domain is unbound.
    license: Option<LicenseId>,
    /// The same, if the call also counts against budgets of this license. Always set if the domain is unbound.
    budgeted_license: Option<LicenseId>,
    /// Whether no usable license is bound or being transferred to the domain.
    domain_is_unbound: bool,
}

/// Checks a request. `network` is the caller's [`ClientAddress::network`], or empty if that is unknown.
///
/// # Errors
/// [`domains::Refusal`] and [`licenses::Refusal`] if the server must not call the domain.
fn check_request(
    reader: &Reader<'_>,
    request: &RequestMessage,
    network: &str,
    now: UnixMs,
) -> Result<Eligibility> {
    let domain = &request.domain;
    let by_network = caller_by_network(reader, domain, network, now)?;
    let served = domains::is_served(reader, domain, now)?;
    let Some(key) = &request.license_key else {
        let eligibility = served.then_some(Eligibility {
            caller: by_network,
            license: None,
            budgeted_license: None,
            domain_is_unbound: false,
        });
        return eligibility.ok_or_else(|| domains::Refusal::NotLicensed.into());
    };
    // An invalid key is refused even where no key is needed.
    let key = LicenseKey::parse(key).ok_or(licenses::Refusal::NotFound)?;
    let license = licenses::usable_by_key(reader, &key, now)??;
    let binding = domains::binding_at(reader, license.id, now)?;
    let by_key = Caller::with_license(&binding, domain).ok_or(domains::Refusal::DomainBound)?;
    // A known source counts for more than the key of an unconfirmed license, which any buyer could send for any domain.
    let is_known = by_network == Caller::Trusted;
    let caller = if is_known { by_network } else { by_key };
    let counts_against_license = !served || caller == Caller::Unconfirmed;
    Ok(Eligibility {
        caller,
        license: Some(license.id),
        budgeted_license: counts_against_license.then_some(license.id),
        domain_is_unbound: !served,
    })
}

/// How far a caller is trusted for `domain` because of its network alone, whatever key it sends.
fn caller_by_network(
    reader: &Reader<'_>,
    domain: &Domain,
    network: &str,
    now: UnixMs,
) -> Result<Caller> {
    let since = now.minus(KNOWN_SOURCE_MAX_AGE);
    let known = store::is_known_source(reader, domain, network, since)?;
    Ok(if known {
        Caller::Trusted
    } else {
        Caller::Untrusted
    })
}

/// When a handshake for `domain` was last completed; `None` if never.
pub fn last_handshake_at(reader: &Reader<'_>, domain: &Domain) -> Result<Option<UnixMs>> {
    store::last_handshake_at(reader, domain)
}

impl Handshake {
    /// The site as the actor of an audit entry.
    fn actor(&self) -> Actor {
        Actor::Site {
            domain: self.domain.clone(),
            source: self.source,
        }
    }
}

impl SiteOperation {
    /// What the operation does; `None` if it is refused. Called twice: when the third message arrives, and again in the
    /// database transaction that stores the result.
    fn decide(&self, reader: &Reader<'_>, now: UnixMs) -> Result<Option<Decision>> {
        let handshake = &self.handshake;
        if !handshake.domain_is_unbound && !domains::is_served(reader, &handshake.domain, now)? {
            return Ok(None);
        }
        let Some(key) = self.operation.key() else {
            let slug = self.operation.product();
            let product = domains::product(reader, &handshake.domain, slug, now)?;
            let product = product.filter(|_| !handshake.domain_is_unbound);
            return Ok(product.map(Decision::Versions));
        };
        let Ok(license) = licenses::usable_by_key(reader, key, now)? else {
            return Ok(None);
        };
        // A site on an unbound domain may only register the license whose key was in its request.
        if handshake.domain_is_unbound && handshake.license != Some(license.id) {
            return Ok(None);
        }
        let binding = domains::binding_at(reader, license.id, now)?;
        let binding = rules::binding_after(self, binding, now);
        Ok(binding.map(|binding| Decision::Binding(Box::new(license), binding)))
    }

    /// Stores the result, and returns the information to deliver; `None` if it is no longer allowed.
    fn run(&self, act: &Act<'_>, settings: &ProgramSettingsCache) -> Result<Option<Information>> {
        let action = self.operation.audit_action();
        Ok(match self.decide(act.tx, act.now)? {
            None => None,
            Some(Decision::Versions(product)) => {
                act.note(&Change {
                    action,
                    subject: self.handshake.domain.as_str(),
                    before: Value::Null,
                    after: Value::Null,
                })?;
                Some(Information::Versions(settings.read(act.tx, product)?))
            }
            Some(Decision::Binding(license, binding)) => {
                domains::set_binding(act, license.id, &binding, action)?;
                Some(Information::License(license, binding))
            }
        })
    }
}
