//! The handshake log, and the known sources of each domain: the networks from which handshakes for it were completed.

use super::{Handshake, store};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::domain::Domain;
use crate::error::Result;
use crate::id::LicenseId;
use crate::metrics::Refusals;
use crate::paging::{Direction, Page, PageRequest, SortPosition, Total};
use crate::privacy;
use crate::refusals::{self, FailedHandshake};
use crate::security::client_address::ClientAddress;

/// Entries kept in the handshake log, of all domains together.
const LOG_MAX: i64 = 1000;
/// Log entries kept for one domain.
const LOG_MAX_PER_DOMAIN: u32 = 100;
/// Known sources remembered for each domain.
const KNOWN_SOURCES_MAX: u32 = 16;

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The site accepted the delivery.
    Delivered,
    /// The delivery failed.
    Undelivered,
    /// The site did not accept the challenge.
    ChallengeFailed,
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
        Self::ChallengeFailed,
        Self::Refused,
        Self::Abandoned,
    ];

    /// The value in the database. `unanswered` does not mean the calls that `UnansweredCalls` counts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
            Self::ChallengeFailed => "unanswered",
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
    /// The license whose key was in the request.
    pub license: Option<LicenseId>,
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

impl Handshake {
    /// This handshake as finished, for the log.
    pub(super) fn to_finished(
        &self,
        operation: Option<&str>,
        outcome: Outcome,
        reason: String,
    ) -> FinishedHandshake {
        FinishedHandshake {
            at: self.at,
            domain: self.domain.clone(),
            source: self.source.to_string(),
            license: self.license,
            operation: operation.map(str::to_owned),
            outcome,
            reason,
        }
    }
}

/// Logs a finished handshake; if it was delivered, remembers `source` as a known source of the domain. Does nothing if any
/// customer was erased since the handshake began, because it may be about that customer's license. Returns what is to be
/// counted once this is written.
pub fn log_finished(
    tx: &Tx<'_>,
    finished: &FinishedHandshake,
    source: ClientAddress,
    now: UnixMs,
) -> Result<Option<Refusals>> {
    if privacy::was_erased_since(tx, finished.at)? {
        return Ok(None);
    }
    let network = source.network();
    if let Some(network) = network.filter(|_| finished.outcome == Outcome::Delivered) {
        store::remember_source(tx, &finished.domain, &network, now)?;
        store::trim_sources(tx, &finished.domain, KNOWN_SOURCES_MAX)?;
    }
    let failed = FailedHandshake {
        at: finished.at,
        domain: finished.domain.as_str(),
        license: finished.license,
        address: source,
        detail: &finished.reason,
    };
    let refused = refusals::record_handshake(tx, finished.outcome.as_str(), &failed)?;
    // The oldest entries beyond the limits are removed.
    let id = store::insert_log_entry(tx, finished)?;
    store::trim_log_of_domain(tx, &finished.domain, LOG_MAX_PER_DOMAIN)?;
    store::trim_log(tx, id.saturating_sub(LOG_MAX))?;
    Ok(refused)
}

/// A page of the log of one domain or, if `None`, of all, in the order of `position`, and how many entries the log has.
pub fn log_entries(
    reader: &Reader<'_>,
    domain: Option<&Domain>,
    (position, direction): (impl Fn(&LogEntry) -> SortPosition, Direction),
    request: &PageRequest<SortPosition>,
) -> Result<(Page<LogEntry>, Total)> {
    let entries = store::log_entries(reader, domain, LOG_MAX)?;
    let total = Total::Exactly(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    Ok((request.cut(entries, direction, position), total))
}
