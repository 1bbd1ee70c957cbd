//! Help for integrating a program: the server's address, keys and calls, ready to copy, and a dry run of the calls. A
//! module of its own, since a dry run uses licenses, devices and sessions.

pub mod panel;
mod rules;

pub use rules::Refusal;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::activations::{self, Slots};
use crate::audit::{self, Actor, Change};
use crate::clock::Now;
use crate::db::Tx;
use crate::devices::ClientIdentity;
use crate::error::{Doing, Error, Result};
use crate::id::{LicenseId, SessionToken};
use crate::licenses;
use crate::products::{ProgramSettings, ProgramSettingsCache};
use crate::security::rate_limit::Quota;
use crate::session_history::EndReason;
use crate::sessions::{self, GivenKey, HeartbeatAccepted, LiveSessions, StartRequest};

/// The name and the fingerprint of the device of a dry run.
const MACHINE: &str = "rehearsal";
const HARDWARE: &str = "license-server rehearsal";

/// How clients reach this server.
#[derive(Clone, Debug)]
pub struct PublicEndpoint {
    /// `https://…`, without a trailing slash.
    pub url: String,
    /// Whether `url` is set as `public_url`; if not, it is only the address on which the server listens.
    pub public: bool,
    /// The certificate that clients must trust; `None` if it comes from a public authority.
    pub authority: Option<Authority>,
    /// The path on which sites accept callbacks.
    pub callback_path: String,
    /// The port on which sites accept callbacks.
    pub callback_port: u16,
}

/// The certificate of the server's own authority.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its file on this machine.
    pub file: String,
    /// The certificate as PEM, without its private key.
    pub pem: String,
}

/// The input of a dry run.
#[derive(Clone, Debug)]
pub struct DryRunRequest {
    /// The license to use.
    pub license_id: LicenseId,
    /// The administrator's address, which becomes that of the session.
    pub address: String,
}

/// The responses that a program would have got.
pub struct DryRun {
    /// The response to the activation, as JSON.
    pub activated: String,
    /// The response to the start of a session, as JSON.
    pub started: String,
    /// The result of the heartbeat.
    pub heartbeat: HeartbeatAccepted,
    /// How the session ended.
    pub ended: EndReason,
    /// The device slots after the deactivation.
    pub slots: Slots,
    /// The settings that applied.
    pub settings: Arc<ProgramSettings>,
}

/// Makes the calls of a program with a license: activates a device, starts a session, sends a heartbeat, ends the
/// session, deactivates the device. All of it runs in one transaction, so that no other request ever sees the session,
/// and a refusal leaves nothing behind.
///
/// # Errors
/// [`Refusal::InUse`] while a session runs on the license, and every refusal that a program would get.
pub fn dry_run(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    settings_cache: &ProgramSettingsCache,
    request: &DryRunRequest,
    actor: &Actor,
    now: Now,
) -> Result<DryRun> {
    let license = licenses::find(tx, request.license_id)?;
    let settings = settings_cache.read(tx)?;
    let version = settings.config.current_version;
    settings.check_version(version)?;
    // Some policies let a start take over a running session, which a dry run must not do.
    if sessions::is_running_on(tx, live, license.id, now)? {
        return Err(Refusal::InUse.into());
    }
    let identity = ClientIdentity {
        license_key: Some(license.key),
        machine_id: MACHINE.to_owned(),
        hardware_id: HARDWARE.to_owned(),
        version,
    };
    let quota = Quota::unlimited();
    let activated = activations::activate(tx, &identity, None, &quota, now)?.answer;
    let start = StartRequest {
        claim: identity,
        address: request.address.clone(),
        idempotency_key: None,
        auto_activate: false,
        // No signer, so no offline lease: the device of a dry run is removed at once.
        signer: None,
        quota,
    };
    let started = sessions::start(tx, live, settings_cache, &start, now)?;
    let token = session_token_in(&started)?;
    let heartbeat = sessions::heartbeat_in_tx(tx, live, &settings, (token, license.key), now)?;
    let key = GivenKey::Sent(Some(license.key));
    let ended = sessions::end(tx, live, &token, &key, now)?;
    let slots = activations::deactivate(tx, live, Some(&license.key), HARDWARE, now)?;
    let change = Change {
        action: "integrate.rehearse",
        subject: &license.id.to_string(),
        before: Value::Null,
        after: json!({ "version": version, "end_reason": ended }),
    };
    audit::note(tx, now.wall, actor, &change)?;
    Ok(DryRun {
        activated,
        started,
        heartbeat,
        ended,
        slots,
        settings,
    })
}

/// The session token in the response to a start.
fn session_token_in(response: &str) -> Result<SessionToken> {
    let response: Value = serde_json::from_str(response).doing("read the response to a start")?;
    let token = response.get("session_token").and_then(Value::as_str);
    let token = token.and_then(SessionToken::parse);
    token.ok_or_else(|| Error::Internal {
        doing: "read the response to a start",
        source: "it contains no session token".into(),
    })
}
