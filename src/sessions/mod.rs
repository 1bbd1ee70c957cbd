//! Sessions: one running copy of a licensed program, kept alive by heartbeats.

pub mod cli;
pub mod client;
mod live;
pub mod panel;
mod rules;
mod store;
mod views;

pub use live::{LiveSessions, tick_from_wall};
pub use rules::Refusal;
pub use views::{
    ListQuery, ListRow, LivenessCutoff, Order, SessionSpan, count, live_count, page, running,
    running_by_id, running_on, spans,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::clock::{Now, UnixMs};
use crate::db::{Db, Reader, Tx};
use crate::devices::{self, ClientIdentity, Device, LicenseTerms};
use crate::error::{Doing, Error, Result};
use crate::id::{DeviceId, LicenseId, SessionId, SessionToken};
use crate::idempotency::{self, RequestKey, StoredResponse};
use crate::leases::Lease;
use crate::licenses::{self, License, LicenseKey};
use crate::products::{ProgramSettings, ProgramSettingsCache, VersionInfo};
use crate::security::rate_limit::{Group, LookupResult, Quota};
use crate::security::secret;
use crate::security::signing::Signer;
use crate::session_history::{self, EndReason, HistoryEntry};
use crate::version::Version;
use live::{LastHeartbeat, LiveSession};
use rules::Existing;

/// Sessions that a sweep handles in one transaction; other writes wait meanwhile.
const SWEEP_PAGE: u32 = 500;
/// Heartbeats written in one transaction.
const FLUSH_PAGE: usize = 2000;
/// A row of `active_sessions`.
#[derive(Clone, Debug)]
pub(super) struct Row {
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

/// A program's request to start a session.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// License key, device and version, as the program sent them.
    pub claim: ClientIdentity,
    /// The caller's IP address.
    pub address: String,
    /// The `Idempotency-Key` header, if sent.
    pub idempotency_key: Option<String>,
    /// Whether a device without a slot takes a free one.
    pub auto_activate: bool,
    /// Signs the lease; `None` issues no lease.
    pub signer: Option<Arc<Signer>>,
    /// How often the license may start sessions and take slots.
    pub quota: Quota,
}

impl StartRequest {
    /// Rejects a license that starts sessions in a loop: each session leaves a row in the database.
    fn check_quota(&self, license: &License, now: Now) -> Result<()> {
        let acquired = self
            .quota
            .take(Group::LicenseStarts, license.id.0, 1, now.tick);
        acquired.map_err(Error::from)
    }
}

/// The response to a start.
#[derive(serde::Serialize)]
struct StartResponse {
    session_token: String,
    started_at: String,
    heartbeat_interval: u32,
    session_timeout: u32,
    current_version: Version,
    minimum_version: Version,
    update_available: bool,
    whats_new: Option<String>,
    download_url: Option<String>,
    feature_flags: BTreeMap<String, bool>,
    license: LicenseTerms,
    lease: Option<String>,
}

/// What the response to a successful start is made from.
struct StartContext<'a> {
    license: &'a License,
    request_key: Option<&'a RequestKey<'a>>,
    settings: &'a ProgramSettings,
    signer: Option<&'a Signer>,
}

/// Starts a session and returns the response as JSON.
///
/// # Errors
/// [`licenses::Refusal`], [`devices::Refusal`], [`Refusal::Active`], `rate_limited` if the license starts
/// sessions too often.
pub fn start(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    settings_cache: &ProgramSettingsCache,
    request: &StartRequest,
    now: Now,
) -> Result<String> {
    let settings = settings_cache.read(tx)?;
    let StartRequest { claim, .. } = request;
    let license = devices::usable_license(tx, claim.license_key.as_ref(), now.wall)?;
    let device_id = device_for(tx, &license, request, now)?;
    let request_key = request.idempotency_key.as_deref().map(|key| RequestKey {
        license_id: license.id,
        hardware_id: &claim.hardware_id,
        operation: idempotency::IdempotentOperation::Start,
        key,
    });
    let context = StartContext {
        license: &license,
        request_key: request_key.as_ref(),
        settings: &settings,
        signer: request.signer.as_deref(),
    };
    let existing = store::by_license(tx, license.id)?;
    if let Some(running) = &existing {
        let last_heartbeat = live.check(running, now.tick);
        if let Some(response) = stored_response(tx, request_key.as_ref(), running, now)?
            && !last_heartbeat.timed_out(now.tick)
        {
            let timeout_s = settings.config.session_timeout;
            accept_heartbeat(
                tx,
                live,
                running,
                &license,
                LastHeartbeat::now(now, timeout_s),
            );
            return Ok(response);
        }
        let same_device = running.device_id == device_id;
        let timed_out = last_heartbeat.timed_out(now.tick);
        let reason = rules::takeover(
            settings.config.session_policy,
            Existing {
                timed_out,
                same_device,
            },
        )?;
        request.check_quota(&license, now)?;
        // Before the new row replaces the old one: a heartbeat that arrives now must wait for this transaction.
        let last_heartbeat = remove_from_live(tx, live, running);
        let session = Row::new(tx, &license, device_id, request, &settings, now)?;
        insert_running(tx, &session, Some(running.id))?;
        add_to_history(tx, running, &last_heartbeat, reason, now)?;
        context.complete(tx, live, &session, now)
    } else {
        request.check_quota(&license, now)?;
        let session = Row::new(tx, &license, device_id, request, &settings, now)?;
        insert_running(tx, &session, None)?;
        context.complete(tx, live, &session, now)
    }
}

/// The device that starts the session; with `auto_activate` it takes a slot if it has none.
fn device_for(
    tx: &Tx<'_>,
    license: &License,
    request: &StartRequest,
    now: Now,
) -> Result<DeviceId> {
    let claim = &request.claim;
    match devices::find(tx, license.id, &claim.hardware_id)? {
        Some(device) => {
            devices::refresh(tx, device.id, claim, now.wall)?;
            Ok(device.id)
        }
        None if request.auto_activate => {
            devices::take_slot(tx, license, claim, &request.quota, now)
        }
        None => Err(devices::Refusal::NotActivated.into()),
    }
}

/// The response that the running session was started with, if this is the same request again.
fn stored_response(
    tx: &Tx<'_>,
    request_key: Option<&RequestKey<'_>>,
    running: &Row,
    now: Now,
) -> Result<Option<String>> {
    let stored = request_key
        .map(|key| idempotency::find(tx, key, now.wall))
        .transpose()?
        .flatten();
    Ok(stored
        .filter(|stored| stored.session_id == Some(running.id))
        .map(|stored| stored.answer))
}

impl Row {
    /// Its row of the history if it ends now, as far as the database knows.
    fn history_entry(&self, ended_at: UnixMs, reason: EndReason) -> HistoryEntry<'_> {
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

    fn new(
        tx: &Tx<'_>,
        license: &License,
        device_id: DeviceId,
        request: &StartRequest,
        settings: &ProgramSettings,
        now: Now,
    ) -> Result<Self> {
        let random: [u8; 16] = secret::random()?;
        let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
        Ok(Self {
            id: store::next_id(tx)?,
            token: SessionToken::from_bytes(uuid.into_bytes()),
            license_id: license.id,
            device_id,
            hardware_id: request.claim.hardware_id.clone(),
            machine_id: request.claim.machine_id.clone(),
            version: request.claim.version,
            address: request.address.clone(),
            started_at: now.wall,
            last_heartbeat_at: now.wall,
            timeout_s: settings.config.session_timeout,
        })
    }
}

/// Inserts the running session of a license, in place of `replaces`. Refused if yet another session runs.
fn insert_running(tx: &Tx<'_>, session: &Row, replaces: Option<SessionId>) -> Result<()> {
    if store::insert_running(tx, session, replaces)? {
        Ok(())
    } else {
        Err(Refusal::Active.into())
    }
}

impl StartContext<'_> {
    /// Completes a start: builds the response, stores it for a repeated request, and adds the session to
    /// [`LiveSessions`].
    fn complete(
        &self,
        tx: &Tx<'_>,
        live: &Arc<LiveSessions>,
        session: &Row,
        now: Now,
    ) -> Result<String> {
        let response = serde_json::to_string(&self.response(session, now)?);
        let response = response.doing("write the response to a start")?;
        if let Some(request_key) = self.request_key {
            let stored = StoredResponse {
                answer: response.clone(),
                session_id: Some(session.id),
            };
            idempotency::save(tx, request_key, &stored, now.wall)?;
        }
        let last_heartbeat = LastHeartbeat::now(now, session.timeout_s);
        let live_session = LiveSession {
            unsaved: false,
            ..live_session(tx, session, self.license, last_heartbeat)
        };
        let pending = live.insert_pending(session.token, live_session);
        tx.after_commit(move || pending.confirm());
        Ok(response)
    }

    fn response(&self, session: &Row, now: Now) -> Result<StartResponse> {
        let (settings, license) = (self.settings, self.license);
        let VersionInfo {
            current_version,
            minimum_version,
            update_available,
            whats_new,
            download_url,
            ..
        } = settings.version_info(session.version);
        let lease = Lease::of(settings, license, &session.hardware_id, now.wall);
        let lease = self.signer.zip(lease);
        Ok(StartResponse {
            session_token: session.token.reveal(),
            started_at: session.started_at.rfc3339(),
            heartbeat_interval: settings.config.heartbeat_interval,
            session_timeout: session.timeout_s,
            current_version,
            minimum_version,
            update_available,
            whats_new,
            download_url,
            feature_flags: settings.flags_for(license.id.0),
            license: LicenseTerms::of(license),
            lease: lease
                .map(|(signer, lease)| lease.signed(&signer.key_pair()))
                .transpose()?,
        })
    }
}

fn live_session(
    reader: &Reader<'_>,
    session: &Row,
    license: &License,
    last_heartbeat: LastHeartbeat,
) -> LiveSession {
    LiveSession {
        session_id: session.id,
        license_key: license.key,
        valid_until: license.valid_until,
        version: session.version,
        last_heartbeat,
        generation: reader.generation(),
        unsaved: true,
    }
}

/// Accepts a heartbeat that was just checked against the database.
fn accept_heartbeat(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    session: &Row,
    license: &License,
    last_heartbeat: LastHeartbeat,
) {
    let live_session = live_session(tx, session, license, last_heartbeat);
    let (live, token) = (live.clone(), session.token);
    live.insert_unconfirmed(token, live_session.clone());
    tx.after_commit(move || live.insert(token, live_session));
}

/// Prepares the end of a session: from now on its heartbeats go through the database, and the commit removes it
/// from memory. Returns its last heartbeat.
fn remove_from_live(tx: &Tx<'_>, live: &Arc<LiveSessions>, session: &Row) -> LastHeartbeat {
    let last_heartbeat = live.invalidate(session);
    let (live, token) = (live.clone(), session.token);
    tx.after_commit(move || live.forget(&token));
    last_heartbeat
}

/// Adds a session that is no longer in `active_sessions` to the history.
fn add_to_history(
    tx: &Tx<'_>,
    session: &Row,
    last_heartbeat: &LastHeartbeat,
    reason: EndReason,
    now: Now,
) -> Result<()> {
    let ended_at = if reason == EndReason::Timeout {
        last_heartbeat.times_out_at()
    } else {
        now.wall
    };
    let entry = HistoryEntry {
        last_heartbeat_at: last_heartbeat.last_at,
        ..session.history_entry(ended_at, reason)
    };
    session_history::add(tx, &entry)
}

/// Ends a session: moves it to the history and returns how it ended.
fn finish(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    session: &Row,
    reason: EndReason,
    now: Now,
) -> Result<EndReason> {
    let last_heartbeat = remove_from_live(tx, live, session);
    let reason = if last_heartbeat.timed_out(now.tick) {
        EndReason::Timeout
    } else {
        reason
    };
    store::remove(tx, session.id)?;
    add_to_history(tx, session, &last_heartbeat, reason, now)?;
    Ok(reason)
}

/// What the response to a heartbeat is made from.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatAccepted {
    /// The program version that started the session.
    pub version: Version,
}

/// Accepts a heartbeat: from memory if possible, otherwise after a check against the database.
///
/// # Errors
/// [`licenses::Refusal`], [`Refusal::NotFound`], [`Refusal::Ended`].
pub async fn heartbeat(
    db: &Db,
    live: &Arc<LiveSessions>,
    settings: &ProgramSettings,
    credentials: (SessionToken, LicenseKey),
    now: Now,
) -> Result<HeartbeatAccepted> {
    let (token, key) = credentials;
    let timeout_s = settings.config.session_timeout;
    if let Some(version) = live.try_heartbeat(&token, &key, now, db.generation(), timeout_s) {
        return Ok(HeartbeatAccepted { version });
    }
    let last_heartbeat = LastHeartbeat::now(now, timeout_s);
    let live_for_read = live.clone();
    let accepted = db.read_on_writer("sessions.recognise", move |reader| {
        heartbeat_on_reader(reader, &live_for_read, credentials, last_heartbeat, now)
    });
    if let Some(accepted) = accepted.await? {
        return Ok(accepted);
    }
    let live = live.clone();
    db.write("sessions.heartbeat", move |tx| {
        heartbeat_or_end(tx, &live, credentials, last_heartbeat, now)
    })
    .await?
}

/// Accepts a heartbeat inside a transaction that does more.
///
/// # Errors
/// As [`heartbeat`].
pub fn heartbeat_in_tx(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    settings: &ProgramSettings,
    credentials: (SessionToken, LicenseKey),
    now: Now,
) -> Result<HeartbeatAccepted> {
    let last_heartbeat = LastHeartbeat::now(now, settings.config.session_timeout);
    heartbeat_or_end(tx, live, credentials, last_heartbeat, now)?
}

/// Looks up whether the token and key of a request are known, so that the request is served although its address is
/// over a limit. After a restore a session may be unknown; then a known license key counts.
pub fn look_up_caller(
    reader: &Reader<'_>,
    token: &SessionToken,
    key: &GivenKey,
) -> Result<LookupResult> {
    let license_id = match key {
        GivenKey::None => None,
        GivenKey::Sent(key) => {
            let license = key.as_ref().map(|key| licenses::by_key(reader, key));
            match license.transpose()?.flatten() {
                Some(license) => Some(license.id),
                None => return Ok(LookupResult::Unknown),
            }
        }
    };
    let matches = |of: LicenseId| license_id.is_none_or(|license_id| license_id == of);
    let running = store::by_token(reader, token)?;
    let runs = running.is_some_and(|session| matches(session.license_id));
    Ok(
        if runs || refusal_for_missing(reader, token, license_id)? != Refusal::NotFound {
            LookupResult::Own
        } else if license_id.is_some() {
            LookupResult::License
        } else {
            LookupResult::Unknown
        },
    )
}

/// The result of checking a heartbeat against the database, unless it is refused outright.
enum Validated {
    Valid(Row, License),
    /// The session still runs, but must be ended before the heartbeat is refused.
    MustEnd(Row, EndReason, Error),
}

/// Accepts a heartbeat after a read-only check. `None` if the session must be ended, which needs a transaction.
fn heartbeat_on_reader(
    reader: &Reader<'_>,
    live: &Arc<LiveSessions>,
    credentials: (SessionToken, LicenseKey),
    last_heartbeat: LastHeartbeat,
    now: Now,
) -> Result<Option<HeartbeatAccepted>> {
    match validate(reader, live, credentials, now)? {
        Validated::Valid(session, license) => {
            let version = session.version;
            live.insert(
                session.token,
                live_session(reader, &session, &license, last_heartbeat),
            );
            Ok(Some(HeartbeatAccepted { version }))
        }
        Validated::MustEnd(..) => Ok(None),
    }
}

/// The same in a transaction, which may have to end the session. An outer error rolls back; an inner one is the
/// refusal after the end was written.
fn heartbeat_or_end(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    credentials: (SessionToken, LicenseKey),
    last_heartbeat: LastHeartbeat,
    now: Now,
) -> Result<Result<HeartbeatAccepted>> {
    match validate(tx, live, credentials, now)? {
        Validated::Valid(session, license) => {
            let version = session.version;
            accept_heartbeat(tx, live, &session, &license, last_heartbeat);
            Ok(Ok(HeartbeatAccepted { version }))
        }
        Validated::MustEnd(session, reason, refusal) => {
            finish(tx, live, &session, reason, now)?;
            Ok(Err(refusal))
        }
    }
}

fn validate(
    reader: &Reader<'_>,
    live: &LiveSessions,
    (token, key): (SessionToken, LicenseKey),
    now: Now,
) -> Result<Validated> {
    let found = store::by_token(reader, &token)?;
    let license = licenses::by_key(reader, &key)?.ok_or(licenses::Refusal::NotFound)?;
    let matching = found.filter(|session| session.license_id == license.id);
    match (licenses::check_usable(&license, now.wall), matching) {
        (Err(refusal), None) => Err(refusal.into()),
        (Err(refusal), Some(session)) => {
            let reason = EndReason::Forced;
            Ok(Validated::MustEnd(session, reason, refusal.into()))
        }
        (Ok(()), None) => Err(refusal_for_missing(reader, &token, Some(license.id))?.into()),
        (Ok(()), Some(session)) if live.check(&session, now.tick).timed_out(now.tick) => {
            let reason = EndReason::Timeout;
            Ok(Validated::MustEnd(
                session,
                reason,
                Refusal::Ended(reason).into(),
            ))
        }
        (Ok(()), Some(session)) => Ok(Validated::Valid(session, license)),
    }
}

/// The refusal for a token without a running session: ended or unknown.
fn refusal_for_missing(
    reader: &Reader<'_>,
    token: &SessionToken,
    license_id: Option<LicenseId>,
) -> Result<Refusal> {
    let ended = session_history::by_token(reader, token)?;
    let matching = ended.filter(|(of, _)| license_id.is_none_or(|license_id| license_id == *of));
    Ok(matching.map_or(Refusal::NotFound, |(_, reason)| Refusal::Ended(reason)))
}

/// The license key that a program may send when it ends its session.
#[derive(Clone, Copy, Debug)]
pub enum GivenKey {
    /// None was sent: nothing to check.
    None,
    /// This one was sent; `None` if the text cannot be a key.
    Sent(Option<LicenseKey>),
}

/// Ends a session for its program. If it has ended already, returns how.
///
/// # Errors
/// [`licenses::Refusal::NotFound`] if the key is unknown, [`Refusal::NotFound`].
pub fn end(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    token: &SessionToken,
    key: &GivenKey,
    now: Now,
) -> Result<EndReason> {
    let found = store::by_token(tx, token)?;
    let license_id = match key {
        GivenKey::None => None,
        GivenKey::Sent(key) => {
            let license = key
                .as_ref()
                .map(|key| licenses::by_key(tx, key))
                .transpose()?
                .flatten();
            Some(license.ok_or(licenses::Refusal::NotFound)?.id)
        }
    };
    match found.filter(|session| license_id.is_none_or(|id| id == session.license_id)) {
        Some(session) => finish(tx, live, &session, EndReason::Normal, now),
        None => match refusal_for_missing(tx, token, license_id)? {
            Refusal::Ended(reason) => Ok(reason),
            refusal => Err(refusal.into()),
        },
    }
}

/// The slots of a license after a deactivation.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Slots {
    device_count: u32,
    device_limit: u32,
}

/// Frees the slot of a device for its program, and ends the device's session.
///
/// # Errors
/// [`licenses::Refusal`], [`devices::Refusal::NotActivated`].
pub fn deactivate(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    key: Option<&LicenseKey>,
    hardware_id: &str,
    now: Now,
) -> Result<Slots> {
    let license = devices::usable_license(tx, key, now.wall)?;
    let device = devices::find(tx, license.id, hardware_id)?;
    let device = device.ok_or(devices::Refusal::NotActivated)?;
    free_slot(tx, live, &license, device.id, EndReason::Normal, now)?;
    Ok(Slots {
        device_count: devices::count(tx, license.id)?,
        device_limit: license.device_limit,
    })
}

fn free_slot(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    license: &License,
    device_id: DeviceId,
    reason: EndReason,
    now: Now,
) -> Result<()> {
    let running = store::by_license(tx, license.id)?;
    if let Some(session) = running.filter(|session| session.device_id == device_id) {
        finish(tx, live, &session, reason, now)?;
    }
    devices::remove(tx, device_id)
}

/// The device of the session on a license; also of one that has timed out and awaits the sweep.
pub fn device_of_session(reader: &Reader<'_>, license_id: LicenseId) -> Result<Option<DeviceId>> {
    Ok(store::by_license(reader, license_id)?.map(|session| session.device_id))
}

/// Frees the slot of a device for an administrator; its session ends as forced.
///
/// # Errors
/// [`Error::NotFound`] if it holds no slot.
pub fn release_device(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    license: &License,
    hardware_id: &str,
    actor: &Actor,
    now: Now,
) -> Result<()> {
    let device = devices::find(tx, license.id, hardware_id)?;
    let device = device.ok_or_else(|| Error::not_found("device", hardware_id))?;
    free_slot(tx, live, license, device.id, EndReason::Forced, now)?;
    let subject = license.id.to_string();
    let before = json!({ "hardware_id": hardware_id, "machine_id": device.machine_id });
    let change = Change {
        action: "devices.release",
        subject: &subject,
        before,
        after: Value::Null,
    };
    audit::note(tx, now.wall, actor, &change)?;
    tx.invalidate_caches();
    Ok(())
}

/// [`release_device`] for the device with this fingerprint or name.
///
/// # Errors
/// As [`devices::by_name_or_fingerprint`].
pub fn release_named_device(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    license_id: LicenseId,
    name_or_fingerprint: &str,
    actor: &Actor,
    now: Now,
) -> Result<Device> {
    let license = licenses::find(tx, license_id)?;
    let device = devices::by_name_or_fingerprint(tx, license_id, name_or_fingerprint)?;
    release_device(tx, live, &license, &device.hardware_id, actor, now)?;
    Ok(device)
}

/// Ends a session for an administrator and returns how it ended: as a timeout if it had timed out.
///
/// # Errors
/// [`Error::NotFound`] if it does not run.
pub fn terminate(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    id: SessionId,
    actor: &Actor,
    now: Now,
) -> Result<EndReason> {
    let session = store::by_id(tx, id)?.ok_or_else(|| Error::not_found("running session", id))?;
    let reason = finish(tx, live, &session, EndReason::Forced, now)?;
    let subject = id.to_string();
    let before = json!({ "license": session.license_id, "machine_id": session.machine_id });
    let change = Change {
        action: "sessions.terminate",
        subject: &subject,
        before,
        after: Value::Null,
    };
    audit::note(tx, now.wall, actor, &change)?;
    tx.invalidate_caches();
    Ok(reason)
}

/// Whether a session runs on a license, on any device.
pub fn is_running_on(
    reader: &Reader<'_>,
    live: &LiveSessions,
    id: LicenseId,
    now: Now,
) -> Result<bool> {
    let session = store::by_license(reader, id)?;
    Ok(session.is_some_and(|row| !live.last_heartbeat(&row).timed_out(now.tick)))
}

/// Writes the heartbeats and verifications since the last flush to the database.
///
/// # Errors
/// If the write fails; the next flush tries again.
pub async fn flush(db: &Db, live: &Arc<LiveSessions>) -> Result<()> {
    loop {
        let heartbeats = live.take_unsaved(FLUSH_PAGE);
        let devices_seen = live.take_devices_seen(FLUSH_PAGE);
        if heartbeats.is_empty() && devices_seen.is_empty() {
            return Ok(());
        }
        let (retry, devices_retry) = (heartbeats.clone(), devices_seen.clone());
        let written = db
            .write("sessions.flush", move |tx| {
                devices::mark_seen(tx, &devices_seen)?;
                heartbeats
                    .iter()
                    .try_for_each(|heartbeat| store::save_heartbeat(tx, heartbeat))
            })
            .await;
        if let Err(error) = written {
            live.put_back_unsaved(&retry);
            for (device, at) in devices_retry {
                live.mark_device_seen(device, at);
            }
            return Err(error);
        }
    }
}

/// Ends every session that has timed out, or whose license cannot be used any more. Returns how many.
///
/// # Errors
/// If a write fails; sessions that were already ended stay ended.
pub async fn sweep(db: &Db, live: &Arc<LiveSessions>, now: Now) -> Result<usize> {
    let mut ended = 0;
    loop {
        let live = live.clone();
        let end_page = move |tx: &Tx<'_>| end_out_of_use(tx, &live, now);
        let ended_now = db.write("sessions.sweep", end_page).await?;
        ended += ended_now;
        if ended_now < SWEEP_PAGE as usize {
            break;
        }
    }
    let mut after = Some(SessionId(0));
    while let Some(from) = after {
        let live = live.clone();
        let end_page = move |tx: &Tx<'_>| end_timed_out(tx, &live, from, now);
        let (last, ended_now) = db.write("sessions.sweep", end_page).await?;
        ended += ended_now;
        after = last;
    }
    live.evict(now.tick);
    Ok(ended)
}

/// Ends a page of sessions whose licenses cannot be used; returns how many.
fn end_out_of_use(tx: &Tx<'_>, live: &Arc<LiveSessions>, now: Now) -> Result<usize> {
    let sessions = store::out_of_use(tx, now.wall, SWEEP_PAGE)?;
    for session in &sessions {
        finish(tx, live, session, EndReason::Forced, now)?;
    }
    Ok(sessions.len())
}

/// Ends a page of sessions that have timed out. Returns the last session checked, if there may be more, and how many
/// ended.
fn end_timed_out(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    after: SessionId,
    now: Now,
) -> Result<(Option<SessionId>, usize)> {
    let candidates = store::maybe_timed_out(tx, after, now.wall, SWEEP_PAGE)?;
    let mut ended = 0;
    for session in &candidates {
        // The database may lag, and wall-clock dates may be wrong: the monotonic clock decides.
        if live.check(session, now.tick).timed_out(now.tick) {
            finish(tx, live, session, EndReason::Timeout, now)?;
            ended += 1;
        }
    }
    let full = candidates.len() >= SWEEP_PAGE as usize;
    let last = candidates.last().filter(|_| full);
    Ok((last.map(|session| session.id), ended))
}

/// Ends every session of a restored database and returns how many: their state after the backup is unknown, and
/// their programs may run elsewhere by now.
pub fn end_all(tx: &Tx<'_>, now: UnixMs) -> Result<usize> {
    let mut ended = 0;
    loop {
        let sessions = store::first(tx, SWEEP_PAGE)?;
        if sessions.is_empty() {
            return Ok(ended);
        }
        for session in &sessions {
            let last_at = session.last_heartbeat_at;
            store::remove(tx, session.id)?;
            let entry = session.history_entry(now.max(last_at), EndReason::Forced);
            session_history::add(tx, &entry)?;
        }
        ended += sessions.len();
    }
}

/// When a session last sent a heartbeat or ended; `None` without any session.
pub fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::latest(reader)
}
