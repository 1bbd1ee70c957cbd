//! Help for integrating a program: the server's address, keys and calls, ready to copy, and a dry run of the calls. A
//! module of its own, since a dry run uses licenses, devices and sessions.

pub mod panel;
mod programs;
mod rules;

pub use rules::Refusal;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::activations::{self, Activated, ActivationRequest, DeactivationRequest, Slots};
use crate::audit::{Act, Change};
use crate::db::Tx;
use crate::devices::ClientIdentity;
use crate::error::Result;
use crate::id::LicenseId;
use crate::licenses::{self, License};
use crate::live_sessions::LiveNow;
use crate::products::{ProgramSettings, ProgramSettingsCache};
use crate::security::rate_limit::Quota;
use crate::session_history::EndReason;
use crate::sessions::{
    self, Credentials, EndRequest, GivenKey, HeartbeatAccepted, StartRequest, Started,
};
use crate::version::Version;

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

/// The results of the calls.
pub struct DryRun {
    /// The result of the activation.
    pub activated: Activated,
    /// The result of the start of a session.
    pub started: Started,
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
    act: &Act<'_>,
    live: LiveNow<'_>,
    settings_cache: &Arc<ProgramSettingsCache>,
    request: &DryRunRequest,
) -> Result<DryRun> {
    let tx = act.tx;
    let license = licenses::find(tx, request.license_id)?;
    let settings = settings_cache.read(tx, license.product)?;
    let version = settings.config.current_version;
    settings.check_version(version)?;
    // Some policies let a start take over a running session, which a dry run must not do.
    if sessions::is_running_on(tx, live, license.id)? {
        return Err(Refusal::InUse.into());
    }
    let calls = Calls {
        tx,
        live,
        license: &license,
        settings_cache,
    };
    let dry_run = calls.make(settings, &request.address)?;
    // Otherwise a test of the shop would start the customer's term.
    licenses::undo_begin_term(tx, &license)?;
    let change = Change {
        action: "integrate.rehearse",
        subject: &license.id.to_string(),
        before: Value::Null,
        after: json!({ "version": version, "end_reason": dry_run.ended }),
    };
    act.note(&change)?;
    Ok(dry_run)
}

/// The calls of a dry run.
struct Calls<'a> {
    tx: &'a Tx<'a>,
    live: LiveNow<'a>,
    license: &'a License,
    settings_cache: &'a Arc<ProgramSettingsCache>,
}

impl Calls<'_> {
    fn activation_request(&self, version: Version) -> ActivationRequest {
        ActivationRequest {
            product: self.license.product,
            client: self.identity(version),
            idempotency_key: None,
            quota: Quota::unlimited(),
            now: self.live.now,
        }
    }

    fn start_request(&self, version: Version, address: &str) -> StartRequest {
        StartRequest {
            product: self.license.product,
            client: self.identity(version),
            address: address.to_owned(),
            idempotency_key: None,
            auto_activate: false,
            quota: Quota::unlimited(),
            settings: self.settings_cache.clone(),
        }
    }

    fn identity(&self, version: Version) -> ClientIdentity {
        ClientIdentity {
            license_key: Some(self.license.key),
            machine_id: MACHINE.to_owned(),
            hardware_id: HARDWARE.to_owned(),
            version,
        }
    }

    fn make(&self, settings: Arc<ProgramSettings>, address: &str) -> Result<DryRun> {
        let (tx, live) = (self.tx, self.live);
        let version = settings.config.current_version;
        let activated = activations::activate(tx, &self.activation_request(version))?;
        let started = sessions::start(tx, live, &self.start_request(version, address))?;
        let (product, key) = (self.license.product, self.license.key);
        let token = started.token;
        let credentials = Credentials {
            product,
            token,
            key,
        };
        let heartbeat = sessions::heartbeat_in_tx(tx, live, &settings, credentials)?;
        let end_request = EndRequest {
            product,
            token,
            key: GivenKey::Sent(Some(key)),
        };
        let ended = sessions::end(tx, live, &end_request)?;
        let deactivation_request = DeactivationRequest {
            product,
            key: Some(key),
            hardware_id: HARDWARE.to_owned(),
        };
        let (_, slots) = activations::deactivate_unnoted(tx, live, &deactivation_request)?;
        Ok(DryRun {
            activated,
            started,
            heartbeat,
            ended,
            slots,
            settings,
        })
    }
}
