//! Sessions: each is one running copy of a licensed program, kept alive by heartbeats. Ended ones are in
//! `session_history`.

pub mod cli;
pub mod client;
mod heartbeat;
mod listing;
pub mod panel;
mod rules;
mod start;
mod store;
mod upkeep;

pub use crate::live_sessions::{Credentials, GivenKey, HeartbeatAccepted};
pub use crate::session_lists::SessionColumn;
pub use heartbeat::{heartbeat, heartbeat_in_tx};
pub use listing::{
    ListPage, ListQuery, ListRow, LivenessCutoff, count, live_count, page, running, running_by_id,
    running_on,
};
pub use rules::Refusal;
pub use start::{StartRequest, Started, start, start_once};
pub use upkeep::{end_all, flush_devices_seen, flush_heartbeats, sweep};

use serde_json::{Value, json};

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::{Error, Resource, Result};
use crate::id::{DeviceId, LicenseId, ProductId, SessionId, SessionToken};
use crate::licenses::{self, License};
use crate::live_sessions::{LastHeartbeat, LiveNow, LiveSession, StoredHeartbeat};
use crate::security::rate_limit::LookupResult;
use crate::session_history::{self, EndReason, HistoryEntry};
use crate::session_lists::Order;
use crate::version::Version;

/// A row of `active_sessions`: a session that has not ended, with its last heartbeat as stored.
#[derive(Clone, Debug)]
pub(super) struct StoredSession {
    id: SessionId,
    token: SessionToken,
    license_id: LicenseId,
    device_id: DeviceId,
    hardware_id: String,
    machine_id: String,
    version: Version,
    address: String,
    started_at: UnixMs,
    last_heartbeat_at: UnixMs,
    timeout_s: u32,
}

impl StoredSession {
    /// Its history entry. The end is `now`, or for [`EndReason::Timeout`] the moment at which it timed out.
    /// `last_heartbeat` may be later than the stored one.
    fn history_entry(
        &self,
        last_heartbeat: &LastHeartbeat,
        reason: EndReason,
        now: UnixMs,
    ) -> HistoryEntry<'_> {
        let ended_at = if reason == EndReason::Timeout {
            last_heartbeat.times_out_at()
        } else {
            now
        };
        HistoryEntry {
            last_heartbeat_at: last_heartbeat.arrived_at,
            ..self.history_entry_as_stored(ended_at, reason)
        }
    }

    /// Its last heartbeat as stored.
    fn stored_heartbeat(&self) -> StoredHeartbeat {
        StoredHeartbeat {
            token: self.token,
            started_at: self.started_at,
            last_heartbeat_at: self.last_heartbeat_at,
            timeout_s: self.timeout_s,
        }
    }

    /// Its history entry with the last heartbeat as stored.
    fn history_entry_as_stored(&self, ended_at: UnixMs, reason: EndReason) -> HistoryEntry<'_> {
        HistoryEntry {
            id: self.id,
            token: self.token,
            license_id: self.license_id,
            hardware_id: &self.hardware_id,
            machine_id: &self.machine_id,
            version: self.version,
            address: &self.address,
            started_at: self.started_at,
            last_heartbeat_at: self.last_heartbeat_at,
            ended_at,
            reason,
        }
    }
}

/// Builds the [`LiveSession`] for a session that the caller has checked against the database with `reader`.
fn live_session(
    reader: &Reader<'_>,
    session: &StoredSession,
    license: &License,
    last_heartbeat: LastHeartbeat,
) -> LiveSession {
    LiveSession {
        session_id: session.id,
        product: license.product,
        license_key: license.key,
        valid_until: license.valid_until,
        version: session.version,
        updates_until: license.updates_until,
        last_heartbeat,
        generation: reader.generation(),
        unsaved: true,
    }
}

/// Accepts a heartbeat that this transaction checked against the database. Until the commit, heartbeats of the session
/// are still checked against the database, since the transaction may be rolled back.
fn accept_heartbeat(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    token: SessionToken,
    live_session: LiveSession,
) {
    let live = live.sessions.clone();
    live.insert_uncommitted(token, live_session.clone());
    tx.after_commit(move || live.insert(token, live_session));
}

/// When the transaction commits, removes from memory a session that it ends; until then the heartbeats of the session
/// are checked against the database. Returns its last heartbeat.
fn remove_from_live_on_commit(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    session: &StoredSession,
) -> LastHeartbeat {
    let last_heartbeat = live
        .sessions
        .last_heartbeat_and_invalidate(&session.stored_heartbeat());
    let (live, token) = (live.sessions.clone(), session.token);
    tx.after_commit(move || live.remove(&token));
    last_heartbeat
}

/// Ends a session by moving it to the history. Returns how it ended: for `reason`, unless it had timed out before.
fn move_to_history(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    session: &StoredSession,
    reason: EndReason,
) -> Result<EndReason> {
    let last_heartbeat = remove_from_live_on_commit(tx, live, session);
    let reason = if last_heartbeat.timed_out(live.now.tick) {
        EndReason::Timeout
    } else {
        reason
    };
    store::remove(tx, session)?;
    session_history::add(
        tx,
        &session.history_entry(&last_heartbeat, reason, live.now.wall),
    )?;
    Ok(reason)
}

/// Looks up whether the token and key of a request are known, so that the request is served although its address is
/// over a limit. After a restore a session may be unknown; then a known license key counts.
pub fn look_up_caller(
    reader: &Reader<'_>,
    product: ProductId,
    token: &SessionToken,
    key: &GivenKey,
) -> Result<LookupResult> {
    let owner = match Owner::of(reader, product, key) {
        Err(Error::Refused(_)) => return Ok(LookupResult::Unknown),
        owner => owner?,
    };
    let running = store::by_token(reader, token)?;
    let is_running = match running {
        Some(session) => owner.owns(reader, session.license_id)?,
        None => false,
    };
    let is_known = is_running || refusal_if_not_running(reader, token, owner)? != Refusal::NotFound;
    Ok(match owner {
        _ if is_known => LookupResult::Caller,
        Owner::License(_) => LookupResult::License,
        Owner::Product(_) => LookupResult::Unknown,
    })
}

/// What a session must belong to, so that a request may name it.
#[derive(Clone, Copy)]
enum Owner {
    /// The license whose key the request gives.
    License(LicenseId),
    /// Any license of the program's product: the request gives no key.
    Product(ProductId),
}

impl Owner {
    /// Refused if the key is not that of a license of the product.
    fn of(reader: &Reader<'_>, product: ProductId, key: &GivenKey) -> Result<Self> {
        let GivenKey::Sent(key) = key else {
            return Ok(Self::Product(product));
        };
        let license = key.map(|key| licenses::by_key(reader, product, &key));
        let license = license.transpose()?.flatten();
        Ok(Self::License(
            license.ok_or(licenses::Refusal::NotFound)?.id,
        ))
    }

    /// Whether a session of this license belongs to it.
    fn owns(self, reader: &Reader<'_>, license_id: LicenseId) -> Result<bool> {
        match self {
            Self::License(id) => Ok(id == license_id),
            Self::Product(product) => Ok(licenses::find(reader, license_id)?.product == product),
        }
    }
}

/// The refusal of a token whose session does not run: [`Refusal::Ended`] if it has ended and belongs to `owner`,
/// otherwise [`Refusal::NotFound`].
fn refusal_if_not_running(
    reader: &Reader<'_>,
    token: &SessionToken,
    owner: Owner,
) -> Result<Refusal> {
    match session_history::by_token(reader, token)? {
        Some((license_id, reason)) if owner.owns(reader, license_id)? => Ok(Refusal::Ended(reason)),
        _ => Ok(Refusal::NotFound),
    }
}

/// A program's request to end a session.
#[derive(Clone, Copy, Debug)]
pub struct EndRequest {
    /// The product of the program, identified by its API key.
    pub product: ProductId,
    /// The token of the session.
    pub token: SessionToken,
    /// The key of its license, which may be missing.
    pub key: GivenKey,
}

/// Ends a session at the request of its program and returns how it ended, now or earlier.
///
/// # Errors
/// [`licenses::Refusal::NotFound`] if the key is unknown, [`Refusal::NotFound`] if the token is unknown or belongs to
/// another license.
pub fn end(tx: &Tx<'_>, live: LiveNow<'_>, request: &EndRequest) -> Result<EndReason> {
    let EndRequest {
        product,
        token,
        key,
    } = request;
    let owner = Owner::of(tx, *product, key)?;
    match store::by_token(tx, token)? {
        Some(session) if owner.owns(tx, session.license_id)? => {
            move_to_history(tx, live, &session, EndReason::Normal)
        }
        _ => match refusal_if_not_running(tx, token, owner)? {
            Refusal::Ended(reason) => Ok(reason),
            refusal => Err(refusal.into()),
        },
    }
}

/// Ends the session that runs on a device, if any.
pub fn end_on_device(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    device_id: DeviceId,
    reason: EndReason,
) -> Result<()> {
    if let Some(session) = store::by_device(tx, device_id)? {
        move_to_history(tx, live, &session, reason)?;
    }
    Ok(())
}

/// The device whose session runs on a license, or has timed out there and awaits the sweep.
pub fn device_running_on(reader: &Reader<'_>, license_id: LicenseId) -> Result<Option<DeviceId>> {
    Ok(store::by_license(reader, license_id)?.map(|session| session.device_id))
}

/// Ends a session at the request of an administrator. Returns how it ended: [`EndReason::Timeout`] if it had timed out
/// before.
///
/// # Errors
/// [`Error::NotFound`] if no running session has this id.
pub fn terminate(act: &Act<'_>, live: LiveNow<'_>, id: SessionId) -> Result<EndReason> {
    let session = store::by_id(act.tx, id)?;
    let session = session.ok_or_else(|| Error::not_found(Resource::RunningSession, id))?;
    let reason = move_to_history(act.tx, live, &session, EndReason::Forced)?;
    let subject = id.to_string();
    let before = json!({ "license": session.license_id, "machine_id": session.machine_id });
    act.changed(&Change {
        action: "sessions.terminate",
        subject: &subject,
        before,
        after: Value::Null,
    })?;
    Ok(reason)
}

/// Whether a session runs on a license, on any device.
pub fn is_running_on(reader: &Reader<'_>, live: LiveNow<'_>, id: LicenseId) -> Result<bool> {
    let session = store::by_license(reader, id)?;
    Ok(session.is_some_and(|session| live.is_running(&session.stored_heartbeat())))
}

/// When any session last sent a heartbeat or ended; `None` if there has been no session.
pub fn latest_activity(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::latest(reader)
}
