//! How a program is taught to ask this server: its address, its key, its calls, and a rehearsal of them. A room of
//! its own, since a rehearsal is a deed that licenses, devices and sessions have a part in.

pub mod panel;
mod rules;

pub use rules::Refusal;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit::{self, Actor, Change};
use crate::client_config::{ProgramSettings, ProgramSettingsCache};
use crate::clock::Now;
use crate::db::Tx;
use crate::devices::{self, ClientIdentity};
use crate::error::{Doing, Error, Result};
use crate::id::{LicenseId, SessionToken};
use crate::licenses;
use crate::security::rate_limit::Quota;
use crate::sessions::{
    self, EndReason, GivenKey, HeartbeatAccepted, LiveSessions, Slots, StartRequest,
};

/// How the device of a rehearsal calls itself, and its fingerprint.
const MACHINE: &str = "rehearsal";
const HARDWARE: &str = "license-server rehearsal";

/// What a rehearsal is to be made of.
#[derive(Clone, Debug)]
pub struct DryRunRequest {
    /// On this license.
    pub license_id: LicenseId,
    /// Where the administrator sits.
    pub address: String,
}

/// What a program would have heard.
pub struct DryRun {
    /// The answer to its activation, as JSON.
    pub activated: String,
    /// The answer to its start, as JSON.
    pub started: String,
    /// What its heartbeat heard.
    pub heard: HeartbeatAccepted,
    /// How its session ended.
    pub ended: EndReason,
    /// The slots after its device has left.
    pub slots: Slots,
    /// What held for it.
    pub settings: Arc<ProgramSettings>,
}

/// Goes the way of a program on a license: takes a slot, starts, beats, ends, gives the slot back. All of it is one
/// deed, so that nobody ever meets the session, and a refusal leaves nothing behind.
///
/// # Errors
/// [`Refusal::InUse`] while a session lives on the license, and whatever a program would be refused with.
pub fn dry_run(
    tx: &Tx<'_>,
    live: &Arc<LiveSessions>,
    current: &ProgramSettingsCache,
    wish: &DryRunRequest,
    actor: &Actor,
    now: Now,
) -> Result<DryRun> {
    let license = licenses::find(tx, wish.license_id)?;
    let settings = current.read(tx)?;
    let version = settings.config.current_version;
    settings.check_version(version)?;
    // Some policies let a start take a session over: a rehearsal must not.
    if sessions::lives_on(tx, live, license.id, now)? {
        return Err(Refusal::InUse.into());
    }
    let claim = ClientIdentity {
        license_key: Some(license.key),
        machine_id: MACHINE.to_owned(),
        hardware_id: HARDWARE.to_owned(),
        version,
    };
    let quota = Quota::unlimited();
    let activated = devices::activate(tx, &claim, None, &quota, now)?.answer;
    let start = StartRequest {
        claim,
        address: wish.address.clone(),
        idempotency_key: None,
        auto_activate: false,
        // Its device is gone in a moment: it must not leave with the right to go on.
        signer: None,
        quota,
    };
    let started = sessions::start(tx, live, current, &start, now)?;
    let token = token_of(&started)?;
    let heard = sessions::beat(tx, live, &settings, (token, license.key), now)?;
    let key = GivenKey::Typed(Some(license.key));
    let ended = sessions::end(tx, live, &token, &key, now)?;
    let slots = sessions::deactivate(tx, live, Some(&license.key), HARDWARE, now)?;
    let deed = Change {
        what: "integrate.rehearse",
        subject: &license.id.to_string(),
        before: Value::Null,
        after: json!({ "version": version, "end_reason": ended }),
    };
    audit::note(tx, now.wall, actor, &deed)?;
    Ok(DryRun {
        activated,
        started,
        heard,
        ended,
        slots,
        settings,
    })
}

/// The token in the answer to a start.
fn token_of(answer: &str) -> Result<SessionToken> {
    let answer: Value = serde_json::from_str(answer).doing("read the answer to a start")?;
    let token = answer.get("session_token").and_then(Value::as_str);
    let token = token.and_then(SessionToken::parse);
    token.ok_or_else(|| Error::Internal {
        doing: "read the answer to a start",
        source: "it holds no session token".into(),
    })
}
