//! Starts sessions, including repeated starts with the same `Idempotency-Key`.

use std::sync::Arc;

use super::rules::ExistingSession;
use super::{
    Refusal, StoredSession, accept_heartbeat, live_session, remove_from_live_on_commit, rules,
    store,
};
use crate::clock::UnixMs;
use crate::db::Tx;
use crate::devices::{self, ClientIdentity, Device, SlotRequest};
use crate::error::Result;
use crate::id::{DeviceId, ProductId, SessionId, SessionToken};
use crate::idempotency::{self, IdempotentOperation, RequestKey, RunOnce, StoredResponse};
use crate::leases::Lease;
use crate::licenses::License;
use crate::live_sessions::{LastHeartbeat, LiveNow, LiveSession};
use crate::products::{self, ProgramSettings, ProgramSettingsCache};
use crate::security::rate_limit::{Group, Quota};
use crate::security::secret;
use crate::session_history;
use crate::version::Version;

/// A program's request to start a session.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The product of the program, identified by its API key.
    pub product: ProductId,
    /// License key, device and version, as the program sent them.
    pub client: ClientIdentity,
    /// The caller's IP address.
    pub address: String,
    /// The `Idempotency-Key` header, if sent; see [`start_once`].
    pub idempotency_key: Option<String>,
    /// Whether a device without a slot takes a free one.
    pub auto_activate: bool,
    /// Limits how often sessions start on the license and devices take its slots.
    pub quota: Quota,
    /// The cache through which the transaction of the start reads the settings.
    pub settings: Arc<ProgramSettingsCache>,
}

/// A session that was just started.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its id.
    pub session_id: SessionId,
    /// The token that identifies it in requests of the program.
    pub token: SessionToken,
    /// When it started.
    pub started_at: UnixMs,
    /// The program's version.
    pub version: Version,
    /// Seconds without a heartbeat after which it times out.
    pub timeout_s: u32,
    /// Its license.
    pub license: License,
    /// Lets the program run offline, if the settings allow that.
    pub lease: Option<Lease>,
    /// The settings that applied to the start.
    pub settings: Arc<ProgramSettings>,
}

/// Starts a session, even if the request repeats an earlier one: the `Idempotency-Key` is ignored.
///
/// # Errors
/// [`licenses::Refusal`](crate::licenses::Refusal), [`products::Refusal::VersionNotCovered`], [`devices::Refusal`],
/// [`Refusal::Active`], `rate_limited` if sessions start on the license too often.
pub fn start(tx: &Tx<'_>, live: LiveNow<'_>, request: &StartRequest) -> Result<Started> {
    Attempt::new(tx, live, request)?.run()
}

/// Starts a session and returns the response, which `respond` writes. A request that repeats this one while the session
/// runs gets the same response and counts as a heartbeat.
///
/// # Errors
/// As [`start`].
pub fn start_once(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    request: &StartRequest,
    respond: impl FnOnce(&Started) -> Result<String>,
) -> Result<String> {
    let attempt = Attempt::new(tx, live, request)?;
    let start = || {
        let started = attempt.run()?;
        let response = respond(&started)?;
        let stored = StoredResponse {
            body: response.clone(),
            session_id: Some(started.session_id),
        };
        Ok((response, Some(stored)))
    };
    let request_key = attempt.request_key();
    let running_id = attempt.running_id();
    let still_runs =
        |stored: &StoredResponse| running_id.is_some() && stored.session_id == running_id;
    match idempotency::run_once(tx, request_key.as_ref(), still_runs, start)? {
        RunOnce::Ran(response) => Ok(response),
        RunOnce::Repeated(stored) => {
            attempt.accept_heartbeat();
            Ok(stored.body)
        }
    }
}

/// A start on a usable license, on a device that holds a slot. Another session may still be in the way.
struct Attempt<'a> {
    tx: &'a Tx<'a>,
    live: LiveNow<'a>,
    request: &'a StartRequest,
    settings: Arc<ProgramSettings>,
    license: License,
    device_id: DeviceId,
    /// Whether the license covers the program's version. A repeated start is answered nevertheless.
    covered: Result<(), products::Refusal>,
    /// The session in the way, which may have timed out, and its last heartbeat.
    existing: Option<(StoredSession, LastHeartbeat)>,
}

impl<'a> Attempt<'a> {
    fn new(tx: &'a Tx<'a>, live: LiveNow<'a>, request: &'a StartRequest) -> Result<Self> {
        let settings = request.settings.read(tx, request.product)?;
        let client = &request.client;
        let key = client.license_key.as_ref();
        let license = devices::usable_license(tx, request.product, key, live.now.wall)?;
        let covered = settings.check_covered(client.version, license.updates_until);
        let held = devices::find(tx, license.id, &client.hardware_id)?;
        let (license, device_id) = if let Some(device) = held {
            refresh(tx, live, &device, client)?;
            (license, device.id)
        } else {
            covered.clone()?;
            take_slot(tx, live, license, request)?
        };
        let existing = store::by_license(tx, license.id)?.map(|other| {
            let stored = other.stored_heartbeat();
            let last_heartbeat = live
                .sessions
                .last_heartbeat_and_invalidate_if_timed_out(&stored, live.now.tick);
            (other, last_heartbeat)
        });
        Ok(Self {
            tx,
            live,
            request,
            settings,
            license,
            device_id,
            covered,
            existing,
        })
    }

    fn request_key(&self) -> Option<RequestKey<'_>> {
        let key = self.request.idempotency_key.as_deref()?;
        Some(RequestKey {
            license_id: self.license.id,
            hardware_id: &self.request.client.hardware_id,
            operation: IdempotentOperation::Start,
            key,
            at: self.live.now.wall,
        })
    }

    /// The id of the existing session, unless it has timed out.
    fn running_id(&self) -> Option<SessionId> {
        let (session, last_heartbeat) = self.existing.as_ref()?;
        let timed_out = last_heartbeat.timed_out(self.live.now.tick);
        (!timed_out).then_some(session.id)
    }

    /// Accepts a repeated start as a heartbeat of the session that it started.
    fn accept_heartbeat(&self) {
        if let Some((session, _)) = &self.existing {
            let timeout_s = self.settings.config.session_timeout;
            let last_heartbeat = LastHeartbeat::now(self.live.now, timeout_s);
            let live_session = live_session(self.tx, session, &self.license, last_heartbeat);
            accept_heartbeat(self.tx, self.live, session.token, live_session);
        }
    }

    fn run(&self) -> Result<Started> {
        self.covered.clone()?;
        let now = self.live.now;
        let Some((other, last_heartbeat)) = &self.existing else {
            self.check_quota()?;
            let session = self.new_row()?;
            self.insert(&session, None)?;
            return Ok(self.add_to_live(&session));
        };
        let existing = ExistingSession {
            timed_out: last_heartbeat.timed_out(now.tick),
            same_device: other.device_id == self.device_id,
        };
        let reason = rules::takeover(self.settings.config.session_policy, existing)?;
        self.check_quota()?;
        // This must precede the replacement of the row: a heartbeat of the old session that arrives in between must not
        // be accepted from memory.
        let last_heartbeat = remove_from_live_on_commit(self.tx, self.live, other);
        let session = self.new_row()?;
        self.insert(&session, Some(other.id))?;
        let entry = other.history_entry(&last_heartbeat, reason, now.wall);
        session_history::add(self.tx, &entry)?;
        Ok(self.add_to_live(&session))
    }

    /// Rejects a start if sessions start on the license in a loop: each session leaves a row in the database.
    fn check_quota(&self) -> Result<()> {
        let (quota, tick) = (&self.request.quota, self.live.now.tick);
        quota.take(Group::LicenseStarts, self.license.id.0, 1, tick)?;
        Ok(())
    }

    fn new_row(&self) -> Result<StoredSession> {
        let random: [u8; 16] = secret::random()?;
        let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
        let client = &self.request.client;
        Ok(StoredSession {
            id: store::next_id(self.tx)?,
            token: SessionToken::from_bytes(uuid.into_bytes()),
            license_id: self.license.id,
            device_id: self.device_id,
            hardware_id: client.hardware_id.clone(),
            machine_id: client.machine_id.clone(),
            version: client.version,
            address: self.request.address.clone(),
            started_at: self.live.now.wall,
            last_heartbeat_at: self.live.now.wall,
            timeout_s: self.settings.config.session_timeout,
        })
    }

    /// Inserts the session, in place of `replaces` if given.
    ///
    /// # Errors
    /// [`Refusal::Active`] if yet another session runs on the license.
    fn insert(&self, session: &StoredSession, replaces: Option<SessionId>) -> Result<()> {
        if store::insert_running(self.tx, session, replaces)? {
            Ok(())
        } else {
            Err(Refusal::Active.into())
        }
    }

    /// Adds the inserted session to the live ones, before the commit: the next operation may share the transaction. A
    /// rollback drops what is pending, which removes the session again. Returns it with what the response needs.
    fn add_to_live(&self, session: &StoredSession) -> Started {
        let now = self.live.now;
        let last_heartbeat = LastHeartbeat::now(now, session.timeout_s);
        let live_session = LiveSession {
            unsaved: false,
            ..live_session(self.tx, session, &self.license, last_heartbeat)
        };
        let pending = self
            .live
            .sessions
            .insert_pending(session.token, live_session);
        self.tx.after_commit(move || pending.confirm());
        let lease = Lease::of(
            &self.settings,
            &self.license,
            &session.hardware_id,
            now.wall,
        );
        Started {
            session_id: session.id,
            token: session.token,
            started_at: session.started_at,
            version: session.version,
            timeout_s: session.timeout_s,
            license: self.license.clone(),
            lease,
            settings: self.settings.clone(),
        }
    }
}

/// Stores what the device sent. If only the time at which it was seen is new, a start costs no write for that: it follows with
/// the next flush, to the minute.
fn refresh(tx: &Tx<'_>, live: LiveNow<'_>, device: &Device, client: &ClientIdentity) -> Result<()> {
    let now = live.now;
    if device.machine_id != client.machine_id || device.version != client.version {
        return devices::refresh(tx, device.id, client, now.wall);
    }
    if devices::is_seen_again(device.last_seen_at, now.wall) {
        let (id, sessions) = (device.id, live.sessions.clone());
        tx.after_commit(move || sessions.at(now).mark_device_seen(id));
    }
    Ok(())
}

/// With `auto_activate`, gives a free slot to the device that starts the session; without it, refuses the start.
fn take_slot(
    tx: &Tx<'_>,
    live: LiveNow<'_>,
    license: License,
    request: &StartRequest,
) -> Result<(License, DeviceId)> {
    if !request.auto_activate {
        devices::check_binding(tx, &license, &request.client.hardware_id)?;
        return Err(devices::Refusal::NotActivated.into());
    }
    let slot_request = SlotRequest {
        client: &request.client,
        quota: &request.quota,
        now: live.now,
    };
    devices::take_slot(tx, license, &slot_request)
}
