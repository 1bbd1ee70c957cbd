//! Handlers for client programs: `/api/license/session/…`.

use std::collections::BTreeMap;

use rocket::{Route, post, routes};
use serde::Serialize;

use super::{Credentials, EndRequest, GivenKey, HeartbeatAccepted, StartRequest, Started};
use crate::app::App;
use crate::clock::Now;
use crate::devices::ClientIdentity;
use crate::devices::client::apply_rate_limits;
use crate::error::{Doing, Error, Result};
use crate::id::SessionToken;
use crate::licenses::client::LicenseTerms;
use crate::licenses::{self, LicenseKey};
use crate::products::client::Program;
use crate::products::{LicensedVersionInfo, ProgramSettings, VersionInfo};
use crate::security::signing::Signer;
use crate::session_history::EndReason;
use crate::version::Version;
use crate::web::body::{Body, FromFields, JsonFields};
use crate::web::rate_limiting::NamedCaller;
use crate::web::reply::{ApiResponse, Reply};

/// The maximum length of a session token, in characters; a UUID has 36.
pub const TOKEN_TEXT_MAX: usize = 64;

/// The response to a start.
#[derive(Serialize)]
pub struct StartResponse {
    session_token: String,
    started_at: String,
    heartbeat_interval: u32,
    session_timeout: u32,
    current_version: Version,
    minimum_version: Version,
    update_available: bool,
    whats_new: Option<String>,
    download_url: Option<String>,
    renewal_version: Option<Version>,
    feature_flags: BTreeMap<String, bool>,
    license: LicenseTerms,
    lease: Option<String>,
}

impl StartResponse {
    /// The response to a start, with `lease` as signed.
    pub fn new(started: &Started, lease: Option<String>) -> Self {
        let settings = &started.settings;
        let updates_until = started.license.updates_until;
        let LicensedVersionInfo {
            info,
            renewal_version,
        } = settings.version_info_for(started.version, updates_until);
        let VersionInfo {
            current_version,
            minimum_version,
            update_available,
            whats_new,
            download_url,
            ..
        } = info;
        Self {
            session_token: started.token.reveal(),
            started_at: started.started_at.rfc3339(),
            heartbeat_interval: settings.config.heartbeat_interval,
            session_timeout: started.timeout_s,
            current_version,
            minimum_version,
            update_available,
            whats_new,
            download_url,
            renewal_version,
            feature_flags: settings.flags_for(started.license.id.0),
            license: LicenseTerms::of(&started.license),
            lease,
        }
    }

    /// The response to a start as JSON; `signer` signs the lease.
    fn json(started: &Started, signer: &Signer) -> Result<String> {
        let lease = started.lease.as_ref();
        let lease = lease.map(|lease| lease.signed(&signer.key_pair()));
        let response = Self::new(started, lease.transpose()?);
        serde_json::to_string(&response).doing("write the response to a start")
    }
}

/// Starts a session.
#[post("/session/start", data = "<body>")]
async fn start(program: Program, body: Body<ClientIdentity>, app: &App) -> Reply {
    let Body(client) = body;
    apply_rate_limits(&program, client.license_key, &client.hardware_id, &app.db).await?;
    let idempotency_key = program.idempotency_key()?;
    let Program {
        now,
        settings,
        address,
        ..
    } = program;
    settings.check_version(client.version)?;
    let request = StartRequest {
        product: settings.config.product,
        client,
        address: address.to_string(),
        idempotency_key,
        auto_activate: app.settings.sessions.auto_activate,
        quota: app.start_quota.clone(),
        settings: app.program_settings.clone(),
    };
    let (live, signer) = (app.live_sessions.clone(), app.signer.clone());
    let response = app
        .db
        .write("sessions.start", move |tx| {
            let respond = |started: &Started| StartResponse::json(started, &signer);
            super::start_once(tx, live.at(now), &request, respond)
        })
        .await?;
    Ok(ApiResponse::created_json(response).for_slot_holder())
}

struct HeartbeatRequest {
    token: SessionToken,
    key: Option<LicenseKey>,
}

impl FromFields for HeartbeatRequest {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
        let token = token(fields)?;
        let key = licenses::client::key(fields)?;
        Ok(Self { token, key })
    }
}

fn token(fields: &mut JsonFields) -> Result<SessionToken> {
    let text = fields.text("session_token", TOKEN_TEXT_MAX)?;
    SessionToken::parse(&text).ok_or_else(|| Error::invalid("session_token", "must be a UUID"))
}

/// The response to a heartbeat.
#[derive(Serialize)]
pub struct HeartbeatResponse {
    status: &'static str,
    heartbeat_interval: u32,
    session_timeout: u32,
    update_available: bool,
    server_time: String,
}

impl HeartbeatResponse {
    /// The response to a heartbeat at `now`.
    pub fn new(accepted: HeartbeatAccepted, settings: &ProgramSettings, now: Now) -> Self {
        Self {
            status: "ok",
            heartbeat_interval: settings.config.heartbeat_interval,
            session_timeout: settings.config.session_timeout,
            update_available: settings.update_available(accepted.version, accepted.updates_until),
            server_time: now.wall.rfc3339(),
        }
    }
}

/// Applies the rate limits to a request that names a session.
async fn apply_rate_limits_to_session(
    program: &Program,
    token: SessionToken,
    key: GivenKey,
    app: &App,
) -> Result<()> {
    let product = program.settings.config.product;
    let mut named = match &key {
        GivenKey::NotSent => Some(NamedCaller::session(product, token.as_bytes(), None)),
        GivenKey::Sent(Some(key)) => {
            Some(NamedCaller::session(product, token.as_bytes(), Some(*key)))
        }
        GivenKey::Sent(None) => None,
    };
    if app.live_sessions.is_known(product, &token, &key) {
        named = named.map(NamedCaller::known);
    }
    let look_up = || {
        app.db
            .read_for_program(move |reader| super::look_up_caller(reader, product, &token, &key))
    };
    program.admit(named, look_up).await
}

/// Keeps a session alive.
#[post("/session/heartbeat", data = "<body>")]
async fn heartbeat(program: Program, body: Body<HeartbeatRequest>, app: &App) -> Reply {
    let Body(HeartbeatRequest { token, key }) = body;
    apply_rate_limits_to_session(&program, token, GivenKey::Sent(key), app).await?;
    let Program { now, settings, .. } = program;
    // `None` is text that cannot be a key.
    let key = key.ok_or(licenses::Refusal::NotFound)?;
    let credentials = Credentials {
        product: settings.config.product,
        token,
        key,
    };
    let live = app.live_sessions.at(now);
    let accepted = super::heartbeat(&app.db, live, &settings, credentials).await?;
    ApiResponse::ok(&HeartbeatResponse::new(accepted, &settings, now))
}

/// The token and the key of a request to end a session.
struct EndFields {
    token: SessionToken,
    key: GivenKey,
}

impl FromFields for EndFields {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
        let token = token(fields)?;
        let key = licenses::client::key_if_given(fields)?;
        Ok(Self {
            token,
            key: key.map_or(GivenKey::NotSent, |text| {
                GivenKey::Sent(LicenseKey::of_part(&text))
            }),
        })
    }
}

/// The response to the end of a session.
#[derive(Serialize)]
pub struct EndResponse {
    status: &'static str,
    end_reason: EndReason,
}

impl EndResponse {
    /// The response for a session that ended for this reason.
    pub fn new(end_reason: EndReason) -> Self {
        let status = "ended";
        Self { status, end_reason }
    }
}

/// Ends a session.
#[post("/session/end", data = "<body>")]
async fn end(program: Program, body: Body<EndFields>, app: &App) -> Reply {
    let Body(EndFields { token, key }) = body;
    apply_rate_limits_to_session(&program, token, key, app).await?;
    let (live, now) = (app.live_sessions.clone(), program.now);
    let request = EndRequest {
        product: program.settings.config.product,
        token,
        key,
    };
    let end_reason = app
        .db
        .write("sessions.end", move |tx| {
            super::end(tx, live.at(now), &request)
        })
        .await?;
    ApiResponse::ok(&EndResponse::new(end_reason))
}

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![start, heartbeat, end]
}
