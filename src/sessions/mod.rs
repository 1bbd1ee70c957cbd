//! Sessions: one running copy of a licensed program, alive as long as it is heard from.

pub mod cli;
pub mod client;
mod fold;
mod lease;
mod live;
pub mod panel;
mod rules;
mod store;
mod views;

pub use fold::{Foldable, TOKEN_KEPT, fold};
pub use lease::Lease;
pub use live::{LiveSessions, tick_from_wall};
pub use rules::{EndReason, Refusal};
pub use views::{
    Edge, Ended, Filter, ListQuery, ListRow, LivenessCutoff, Order, Page, Period, Place, Running,
    Sample, Span, UsageCache, count, ended, history, history_page, live_count, page, running,
    running_by_id, running_on,
};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::client_config::{ProgramSettings, ProgramSettingsCache, VersionInfo};
use crate::clock::{Now, UnixMs};
use crate::db::{Db, Reader, Tx};
use crate::devices::{self, ClientIdentity, Device, LicenseTerms};
use crate::error::{Doing, Error, Result};
use crate::id::{DeviceId, LicenseId, SessionId, SessionToken};
use crate::idempotency::{self, RequestKey, StoredResponse};
use crate::licenses::{self, License, LicenseKey};
use crate::security::rate_limit::{Group, Quota, Standing};
use crate::security::secret;
use crate::security::signing::Signer;
use crate::version::Version;
use live::{LastHeartbeat, LiveSession};
use rules::Existing;

/// Sessions that one sweep looks at in one transaction: others wait for it.
const SWEEP_PAGE: u32 = 500;
/// Heartbeats that are written in one transaction.
const FLUSH_PAGE: usize = 2000;
/// Rows of history that are removed in one transaction.
const PURGE_PAGE: u32 = 1000;

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

/// A program's wish to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// What it says of itself.
    pub claim: ClientIdentity,
    /// Where it calls from.
    pub address: String,
    /// Its `Idempotency-Key`, if it sent one.
    pub idempotency_key: Option<String>,
    /// Whether it may take a free device slot by the way.
    pub auto_activate: bool,
    /// What its lease is signed with; none where nobody would keep one.
    pub signer: Option<Arc<Signer>>,
    /// How often its license may start sessions and take slots.
    pub quota: Quota,
}

impl StartRequest {
    /// Refuses a license that starts sessions in a loop: each of them leaves something in the file.
    fn may_start(&self, license: &License, now: Now) -> Result<()> {
        let taken = self
            .quota
            .take(Group::LicenseStarts, license.id.0, 1, now.tick);
        taken.map_err(Error::from)
    }
}

/// The answer to a start.
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

/// What a start that succeeds is answered from.
struct StartContext<'a> {
    license: &'a License,
    asked: Option<&'a RequestKey<'a>>,
    settings: &'a ProgramSettings,
    signer: Option<&'a Signer>,
}

/// Starts a session and returns the answer as JSON.
///
/// # Errors
/// [`licenses::Refusal`], [`devices::Refusal`], [`Refusal::Active`], `rate_limited` where the license starts
/// sessions too often.
pub fn start(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    current: &ProgramSettingsCache,
    wish: &StartRequest,
    now: Now,
) -> Result<String> {
    let settings = current.read(tx)?;
    let StartRequest { claim, .. } = wish;
    let license = devices::usable_license(tx, claim.license_key.as_ref(), now.wall)?;
    let device_id = device_for(tx, &license, wish, now)?;
    let asked = wish.idempotency_key.as_deref().map(|key| RequestKey {
        license_id: license.id,
        hardware_id: &claim.hardware_id,
        deed: idempotency::IdempotentOperation::Start,
        key,
    });
    let welcome = StartContext {
        license: &license,
        asked: asked.as_ref(),
        settings: &settings,
        signer: wish.signer.as_deref(),
    };
    let existing = store::by_license(tx, license.id)?;
    if let Some(running) = &existing {
        let last_heartbeat = live.check(running, now.tick);
        if let Some(first) = stored_response(tx, asked.as_ref(), running, now)?
            && !last_heartbeat.timed_out(now.tick)
        {
            let timeout_s = settings.config.session_timeout;
            hear(
                tx,
                live,
                running,
                &license,
                LastHeartbeat::now(now, timeout_s),
            );
            return Ok(first);
        }
        let same_device = running.device_id == device_id;
        let over = last_heartbeat.timed_out(now.tick);
        let reason = rules::takeover(
            settings.config.session_policy,
            Existing { over, same_device },
        )?;
        wish.may_start(&license, now)?;
        // Before the new row takes the place: a heartbeat that comes now must wait for this deed.
        let last_heartbeat = leave(tx, live, running);
        let session = Row::new(tx, &license, device_id, wish, &settings, now)?;
        place(tx, &session, Some(running.id))?;
        record(tx, running, &last_heartbeat, reason, now)?;
        welcome.answer(tx, live, &session, now)
    } else {
        wish.may_start(&license, now)?;
        let session = Row::new(tx, &license, device_id, wish, &settings, now)?;
        place(tx, &session, None)?;
        welcome.answer(tx, live, &session, now)
    }
}

/// The device that wants to start; with `auto_activate` it may take a slot now.
fn device_for(tx: &Tx<'_>, license: &License, wish: &StartRequest, now: Now) -> Result<DeviceId> {
    let claim = &wish.claim;
    match devices::find(tx, license.id, &claim.hardware_id)? {
        Some(device) => {
            devices::refresh(tx, device.id, claim, now.wall)?;
            Ok(device.id)
        }
        None if wish.auto_activate => devices::take_slot(tx, license, claim, &wish.quota, now),
        None => Err(devices::Refusal::NotActivated.into()),
    }
}

/// The answer that the running session was started with, if this is the same request again.
fn stored_response(
    tx: &Tx<'_>,
    asked: Option<&RequestKey<'_>>,
    running: &Row,
    now: Now,
) -> Result<Option<String>> {
    let first = asked
        .map(|asked| idempotency::find(tx, asked, now.wall))
        .transpose()?
        .flatten();
    Ok(first
        .filter(|first| first.session_id == Some(running.id))
        .map(|first| first.answer))
}

impl Row {
    fn new(
        tx: &Tx<'_>,
        license: &License,
        device_id: DeviceId,
        wish: &StartRequest,
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
            hardware_id: wish.claim.hardware_id.clone(),
            machine_id: wish.claim.machine_id.clone(),
            version: wish.claim.version,
            address: wish.address.clone(),
            started_at: now.wall,
            last_heartbeat_at: now.wall,
            timeout_s: settings.config.session_timeout,
        })
    }
}

/// Puts the session in the one place of its license, which must be free or held by `instead_of`.
fn place(tx: &Tx<'_>, session: &Row, instead_of: Option<SessionId>) -> Result<()> {
    if store::place(tx, session, instead_of)? {
        Ok(())
    } else {
        Err(Refusal::Active.into())
    }
}

impl StartContext<'_> {
    /// Answers a start, keeps the answer where it may be asked for again, and takes the session in.
    fn answer(
        &self,
        tx: &Tx<'_>,
        live: &Arc<LiveSessions>,
        session: &Row,
        now: Now,
    ) -> Result<String> {
        let answer = serde_json::to_string(&self.told(session, now)?);
        let answer = answer.doing("write the answer to a start")?;
        if let Some(asked) = self.asked {
            let first = StoredResponse {
                answer: answer.clone(),
                session_id: Some(session.id),
            };
            idempotency::keep(tx, asked, &first, now.wall)?;
        }
        let last_heartbeat = LastHeartbeat::now(now, session.timeout_s);
        let live_session = LiveSession {
            unsaved: false,
            ..live_session(tx, session, self.license, last_heartbeat)
        };
        let expected = live.insert_pending(session.token, live_session);
        tx.after_commit(move || expected.keep());
        Ok(answer)
    }

    fn told(&self, session: &Row, now: Now) -> Result<StartResponse> {
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
                .map(|(signer, lease)| lease.signed(&signer.keys()))
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
        epoch: reader.epoch(),
        unsaved: true,
    }
}

/// Takes a heartbeat that the file has just confirmed.
fn hear(
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

/// The session is about to end: its heartbeats wait for the file, and it is forgotten with the commit.
/// When it was last heard.
fn leave(tx: &Tx<'_>, live: &Arc<LiveSessions>, session: &Row) -> LastHeartbeat {
    let last_heartbeat = live.invalidate(session);
    let (live, token) = (live.clone(), session.token);
    tx.after_commit(move || live.forget(&token));
    last_heartbeat
}

/// Writes a session that is no longer in `active_sessions` to the history.
fn record(
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
    store::record(tx, session, last_heartbeat.last_at, ended_at, reason)
}

/// Moves a session to the history.
fn finish(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    session: &Row,
    reason: EndReason,
    now: Now,
) -> Result<EndReason> {
    let last_heartbeat = leave(tx, live, session);
    let reason = if last_heartbeat.timed_out(now.tick) {
        EndReason::Timeout
    } else {
        reason
    };
    store::remove(tx, session.id)?;
    record(tx, session, &last_heartbeat, reason, now)?;
    Ok(reason)
}

/// What a heartbeat hears.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatAccepted {
    /// The version that started the session.
    pub version: Version,
}

/// Takes a heartbeat: from memory where all is known, else with a look at the file.
///
/// # Errors
/// [`licenses::Refusal`], [`Refusal::NotFound`], [`Refusal::Ended`].
pub async fn heartbeat(
    db: &Db,
    live: &Arc<LiveSessions>,
    settings: &ProgramSettings,
    beat: (SessionToken, LicenseKey),
    now: Now,
) -> Result<HeartbeatAccepted> {
    let (token, key) = beat;
    let timeout_s = settings.config.session_timeout;
    if let Some(version) = live.beat(&token, &key, now, db.epoch(), timeout_s) {
        return Ok(HeartbeatAccepted { version });
    }
    let last_heartbeat = LastHeartbeat::now(now, timeout_s);
    let looking = live.clone();
    let seen = db.read_on_writer("sessions.recognise", move |reader| {
        heartbeat_on_reader(reader, &looking, beat, last_heartbeat, now)
    });
    if let Some(heard) = seen.await? {
        return Ok(heard);
    }
    let live = live.clone();
    db.write("sessions.heartbeat", move |tx| {
        heartbeat_in_tx(tx, &live, beat, last_heartbeat, now)
    })
    .await?
}

/// Takes a heartbeat within a deed that has more to do.
///
/// # Errors
/// As [`heartbeat`].
pub fn beat(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    settings: &ProgramSettings,
    beat: (SessionToken, LicenseKey),
    now: Now,
) -> Result<HeartbeatAccepted> {
    let last_heartbeat = LastHeartbeat::now(now, settings.config.session_timeout);
    heartbeat_in_tx(tx, live, beat, last_heartbeat, now)?
}

/// How a session that a program names stands: whether it is worth being heard though its source is over a
/// limit. A heartbeat of a session that a restore forgot is, by the license that comes with it.
///
/// # Errors
/// When SQLite fails.
pub fn standing(reader: &Reader<'_>, token: &SessionToken, key: &GivenKey) -> Result<Standing> {
    let license_id = match key {
        GivenKey::None => None,
        GivenKey::Typed(key) => {
            let license = key.as_ref().map(|key| licenses::by_key(reader, key));
            match license.transpose()?.flatten() {
                Some(license) => Some(license.id),
                None => return Ok(Standing::Unknown),
            }
        }
    };
    let own = |of: LicenseId| license_id.is_none_or(|license_id| license_id == of);
    let runs = store::by_token(reader, token)?.is_some_and(|session| own(session.license_id));
    Ok(
        if runs || missing(reader, token, license_id)? != Refusal::NotFound {
            Standing::Own
        } else if license_id.is_some() {
            Standing::License
        } else {
            Standing::Unknown
        },
    )
}

/// What the file says to a heartbeat, where it does not refuse it at once.
enum Validated {
    Lives(Row, License),
    /// The session is still there, and must end first.
    Ends(Row, EndReason, Error),
}

/// Takes a heartbeat with a look at the file. None, where the session must end: that is a deed.
fn heartbeat_on_reader(
    reader: &Reader<'_>,
    live: &Arc<LiveSessions>,
    beat: (SessionToken, LicenseKey),
    last_heartbeat: LastHeartbeat,
    now: Now,
) -> Result<Option<HeartbeatAccepted>> {
    match validate(reader, live, beat, now)? {
        Validated::Lives(session, license) => {
            let version = session.version;
            live.insert(
                session.token,
                live_session(reader, &session, &license, last_heartbeat),
            );
            Ok(Some(HeartbeatAccepted { version }))
        }
        Validated::Ends(..) => Ok(None),
    }
}

/// The same where the session may have to end. The outer error undoes, the inner one does not.
fn heartbeat_in_tx(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    beat: (SessionToken, LicenseKey),
    last_heartbeat: LastHeartbeat,
    now: Now,
) -> Result<Result<HeartbeatAccepted>> {
    match validate(tx, live, beat, now)? {
        Validated::Lives(session, license) => {
            let version = session.version;
            hear(tx, live, &session, &license, last_heartbeat);
            Ok(Ok(HeartbeatAccepted { version }))
        }
        Validated::Ends(session, reason, refusal) => {
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
    let own = found.filter(|session| session.license_id == license.id);
    match (licenses::standing(&license, now.wall), own) {
        (Err(refusal), None) => Err(refusal.into()),
        (Err(refusal), Some(session)) => {
            let reason = EndReason::Forced;
            Ok(Validated::Ends(session, reason, refusal.into()))
        }
        (Ok(()), None) => Err(missing(reader, &token, Some(license.id))?.into()),
        (Ok(()), Some(session)) if live.check(&session, now.tick).timed_out(now.tick) => {
            let reason = EndReason::Timeout;
            Ok(Validated::Ends(
                session,
                reason,
                Refusal::Ended(reason).into(),
            ))
        }
        (Ok(()), Some(session)) => Ok(Validated::Lives(session, license)),
    }
}

/// Why a session is not among those that run.
fn missing(
    reader: &Reader<'_>,
    token: &SessionToken,
    license_id: Option<LicenseId>,
) -> Result<Refusal> {
    let ended = store::ended_by_token(reader, token)?;
    let own = ended.filter(|(of, _)| license_id.is_none_or(|license_id| license_id == *of));
    Ok(own.map_or(Refusal::NotFound, |(_, reason)| Refusal::Ended(reason)))
}

/// The license key that a program may say goodbye with.
#[derive(Clone, Copy, Debug)]
pub enum GivenKey {
    /// It sent none: nothing to check.
    None,
    /// It sent this; none, where that cannot be a key.
    Typed(Option<LicenseKey>),
}

/// Ends a session for its program. One that is over already stays as it ended.
///
/// # Errors
/// [`licenses::Refusal::NotFound`] for a key that there is none of, [`Refusal::NotFound`].
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
        GivenKey::Typed(key) => {
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
        None => match missing(tx, token, license_id)? {
            Refusal::Ended(reason) => Ok(reason),
            refusal => Err(refusal.into()),
        },
    }
}

/// Slots after a device has left.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Slots {
    device_count: u32,
    device_limit: u32,
}

/// Frees the slot of a device for its program, and ends the session that it holds.
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
    free(tx, live, &license, device.id, EndReason::Normal, now)?;
    Ok(Slots {
        device_count: devices::count(tx, license.id)?,
        device_limit: license.device_limit,
    })
}

fn free(
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

/// The device that holds the session of a license, if one runs or has run out unnoticed.
///
/// # Errors
/// When SQLite fails.
pub fn holder(reader: &Reader<'_>, license_id: LicenseId) -> Result<Option<DeviceId>> {
    Ok(store::by_license(reader, license_id)?.map(|session| session.device_id))
}

/// Frees the slot of a device for an administrator; a session that it holds ends as forced.
///
/// # Errors
/// [`Error::NotFound`] when it holds no slot.
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
    free(tx, live, license, device.id, EndReason::Forced, now)?;
    let subject = license.id.to_string();
    let before = json!({ "hardware_id": hardware_id, "machine_id": device.machine_id });
    let deed = Change {
        what: "devices.release",
        subject: &subject,
        before,
        after: Value::Null,
    };
    audit::note(tx, now.wall, actor, &deed)?;
    tx.invalidate_caches();
    Ok(())
}

/// [`release_device`] for the device that `meant` names: by its fingerprint or by its own name.
///
/// # Errors
/// As [`devices::meant`].
pub fn release_named_device(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    license_id: LicenseId,
    meant: &str,
    actor: &Actor,
    now: Now,
) -> Result<Device> {
    let license = licenses::find(tx, license_id)?;
    let device = devices::meant(tx, license_id, meant)?;
    release_device(tx, live, &license, &device.hardware_id, actor, now)?;
    Ok(device)
}

/// Ends a session for an administrator; one that had fallen silent ends as that. How it ended.
///
/// # Errors
/// [`Error::NotFound`] when it does not run.
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
    let deed = Change {
        what: "sessions.terminate",
        subject: &subject,
        before,
        after: Value::Null,
    };
    audit::note(tx, now.wall, actor, &deed)?;
    tx.invalidate_caches();
    Ok(reason)
}

/// What a program hears of its license.
#[derive(Clone, Debug)]
pub struct Verification {
    /// `valid`, or why not, with what the sentence needs.
    pub refusal: Option<crate::error::Refused>,
    /// None for a key that there is none of.
    pub license: Option<VerifiedLicense>,
    /// Whether the device holds a slot of it.
    pub holds_slot: bool,
    /// Whether a session lives on it, on whatever device.
    pub session_active: bool,
    /// Every feature flag as the license sees it; none without a license.
    pub feature_flags: Option<BTreeMap<String, bool>>,
    /// What it may show itself while it cannot reach us; only where it is valid.
    pub lease: Option<Lease>,
}

/// The license in an answer to `verify`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct VerifiedLicense {
    #[serde(flatten)]
    terms: LicenseTerms,
    device_limit: u32,
    device_count: u32,
}

/// Judges a claim without changing anything but when the device was last seen.
///
/// # Errors
/// When SQLite fails; a claim that does not hold is an answer.
pub fn verify(
    reader: &Reader<'_>,
    live: &LiveSessions,
    settings: &ProgramSettings,
    claim: &ClientIdentity,
    now: Now,
) -> Result<Verification> {
    let too_old = settings.check_version(claim.version).err().map(Into::into);
    let key = claim.license_key.as_ref();
    let Some(license) = key
        .map(|key| licenses::by_key(reader, key))
        .transpose()?
        .flatten()
    else {
        let refusal = too_old.or(Some(licenses::Refusal::NotFound.into()));
        return Ok(Verification {
            refusal,
            license: None,
            holds_slot: false,
            session_active: false,
            feature_flags: None,
            lease: None,
        });
    };
    let device = devices::find(reader, license.id, &claim.hardware_id)?;
    let device_count = devices::count(reader, license.id)?;
    if let Some(device) = &device {
        live.see(device.id, now.wall);
    }
    let refusal = too_old
        .or_else(|| licenses::standing(&license, now.wall).err().map(Into::into))
        .or_else(|| {
            device
                .is_none()
                .then(|| devices::Refusal::NotActivated.into())
        });
    let device_limit = license.device_limit;
    let lease = Lease::of(settings, &license, &claim.hardware_id, now.wall);
    Ok(Verification {
        lease: lease.filter(|_| refusal.is_none()),
        refusal,
        license: Some(VerifiedLicense {
            terms: LicenseTerms::of(&license),
            device_limit,
            device_count,
        }),
        holds_slot: device.is_some(),
        session_active: lives_on(reader, live, license.id, now)?,
        feature_flags: Some(settings.flags_for(license.id.0)),
    })
}

/// Whether a session lives on a license, on whatever device.
///
/// # Errors
/// When SQLite fails.
pub fn lives_on(reader: &Reader<'_>, live: &LiveSessions, id: LicenseId, now: Now) -> Result<bool> {
    let running = store::by_license(reader, id)?;
    Ok(running.is_some_and(|row| !live.last_heartbeat(&row).timed_out(now.tick)))
}

/// Writes what was heard and seen since the last time.
///
/// # Errors
/// When the file does not take it; it is tried again the next time.
pub async fn flush(db: &Db, live: &Arc<LiveSessions>) -> Result<()> {
    loop {
        let beats = live.unsaved(FLUSH_PAGE);
        let seen = live.seen(FLUSH_PAGE);
        if beats.is_empty() && seen.is_empty() {
            return Ok(());
        }
        let (again, seen_again) = (beats.clone(), seen.clone());
        let kept = db
            .write("sessions.flush", move |tx| {
                devices::seen(tx, &seen)?;
                beats.iter().try_for_each(|beat| store::beat(tx, beat))
            })
            .await;
        if let Err(error) = kept {
            live.still_unsaved(&again);
            for (device, at) in seen_again {
                live.see(device, at);
            }
            return Err(error);
        }
    }
}

/// Ends every session that has fallen silent, or whose license is no longer in use. Returns how many.
///
/// # Errors
/// When the file does not take it; what was ended before stays ended.
pub async fn sweep(db: &Db, live: &Arc<LiveSessions>, now: Now) -> Result<usize> {
    let mut ended = 0;
    loop {
        let live = live.clone();
        let page = move |tx: &Tx<'_>| end_unused(tx, &live, now);
        let some = db.write("sessions.sweep", page).await?;
        ended += some;
        if some < SWEEP_PAGE as usize {
            break;
        }
    }
    let mut after = Some(SessionId(0));
    while let Some(from) = after {
        let live = live.clone();
        let page = move |tx: &Tx<'_>| end_silent(tx, &live, from, now);
        let (last, some) = db.write("sessions.sweep", page).await?;
        ended += some;
        after = last;
    }
    live.evict(now.tick);
    Ok(ended)
}

/// Ends a page of sessions whose licenses are out of use; how many.
fn end_unused(tx: &Tx<'_>, live: &Arc<LiveSessions>, now: Now) -> Result<usize> {
    let unused = store::out_of_use(tx, now.wall, SWEEP_PAGE)?;
    for session in &unused {
        finish(tx, live, session, EndReason::Forced, now)?;
    }
    Ok(unused.len())
}

/// Looks at a page of sessions that the file thinks are silent: the last one, if there may be more, and
/// how many ended.
fn end_silent(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    after: SessionId,
    now: Now,
) -> Result<(Option<SessionId>, usize)> {
    let silent = store::silent(tx, after, now.wall, SWEEP_PAGE)?;
    let mut ended = 0;
    for session in &silent {
        // The file may be behind, and dates may lie: the monotonic clock decides.
        if live.check(session, now.tick).timed_out(now.tick) {
            finish(tx, live, session, EndReason::Timeout, now)?;
            ended += 1;
        }
    }
    let full = silent.len() >= SWEEP_PAGE as usize;
    let last = silent.last().filter(|_| full);
    Ok((last.map(|session| session.id), ended))
}

/// Ends every session of a file that was put back: nobody knows what became of them after it was copied, and
/// their programs may run elsewhere by now. How many.
///
/// # Errors
/// When SQLite fails.
pub fn end_all(tx: &Tx<'_>, now: UnixMs) -> Result<usize> {
    let mut ended = 0;
    loop {
        let some = store::first(tx, SWEEP_PAGE)?;
        if some.is_empty() {
            return Ok(ended);
        }
        for session in &some {
            let last_at = session.last_heartbeat_at;
            store::remove(tx, session.id)?;
            store::record(tx, session, last_at, now.max(last_at), EndReason::Forced)?;
        }
        ended += some.len();
    }
}

/// The latest moment at which a session was heard or ended; none without one.
///
/// # Errors
/// When SQLite fails.
pub fn latest(reader: &Reader<'_>) -> Result<Option<UnixMs>> {
    store::latest(reader)
}

/// Removes history that is older than `kept`, and answers that nobody will ask for again.
///
/// # Errors
/// When the file does not take it; what was removed before stays removed.
pub async fn purge(db: &Db, kept: Duration, now: Now) -> Result<usize> {
    let mut removed = 0;
    loop {
        let some = db
            .write("sessions.purge", move |tx| {
                let old = store::purge(tx, now.wall.minus(kept), PURGE_PAGE)?;
                Ok(old + idempotency::forget(tx, now.wall, PURGE_PAGE)?)
            })
            .await?;
        if some == 0 {
            return Ok(removed);
        }
        removed += some;
    }
}
