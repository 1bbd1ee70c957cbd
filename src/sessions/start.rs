//! Starting a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::live::LastHeartbeat;
use super::live::LiveSession;
use super::rules::Existing;
use super::{
    LiveSessions, Refusal, Row, accept_heartbeat, add_to_history, live_session, remove_from_live,
    rules, store,
};
use crate::clock::Now;
use crate::db::Tx;
use crate::devices::{self, ClientIdentity, LicenseTerms};
use crate::error::{Doing, Error, Result};
use crate::id::{DeviceId, SessionId, SessionToken};
use crate::idempotency::{self, RequestKey, StoredResponse};
use crate::leases::Lease;
use crate::licenses::License;
use crate::products::{ProgramSettings, ProgramSettingsCache, VersionInfo};
use crate::security::rate_limit::{Group, Quota};
use crate::security::secret;
use crate::security::signing::Signer;
use crate::version::Version;

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
