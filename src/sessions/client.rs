//! Handlers for client programs: `/api/license/session/…`.

use std::sync::Arc;

use rocket::{Route, State, post, routes};
use serde::Serialize;

use super::{GivenKey, HeartbeatAccepted, LiveSessions, StartRequest};
use crate::clock::Now;
use crate::db::Db;
use crate::devices::ClientIdentity;
use crate::devices::client::apply_rate_limits;
use crate::error::{Error, Result};
use crate::id::SessionToken;
use crate::licenses::{self, LicenseKey};
use crate::products::client::Program;
use crate::products::{ProgramSettings, ProgramSettingsCache};
use crate::security::rate_limit::Quota;
use crate::security::signing::Signer;
use crate::session_history::EndReason;
use crate::web::body::{Body, Fields, FromFields};
use crate::web::rate_limiting::NamedCaller;
use crate::web::reply::{ApiResponse, Reply};

/// The maximum length of a session token, in characters; a UUID has 36.
const TOKEN_TEXT_MAX: usize = 64;

/// The settings of `[sessions]` for starts.
#[derive(Clone, Debug)]
pub struct StartLimits {
    /// Whether a start takes a free device slot.
    pub auto_activate: bool,
    /// How often one license may start sessions.
    pub quota: Quota,
}

/// Starts a session.
#[post("/session/start", data = "<body>")]
async fn start(
    program: Program,
    body: Body<ClientIdentity>,
    limits: &State<StartLimits>,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
    settings_cache: &State<Arc<ProgramSettingsCache>>,
    signer: &State<Arc<Signer>>,
) -> Reply {
    let Body(claim) = body;
    apply_rate_limits(&program, claim.license_key, &claim.hardware_id, db).await?;
    let idempotency_key = program.idempotency_key()?;
    let Program {
        now,
        settings,
        address,
        ..
    } = program;
    settings.check_version(claim.version)?;
    let start_request = StartRequest {
        claim,
        address,
        idempotency_key,
        auto_activate: limits.auto_activate,
        signer: Some(signer.inner().clone()),
        quota: limits.quota.clone(),
    };
    let (live, settings_cache) = (live.inner().clone(), settings_cache.inner().clone());
    let response = db
        .write("sessions.start", move |tx| {
            super::start(tx, &live, &settings_cache, &start_request, now)
        })
        .await?;
    Ok(ApiResponse::created_json(response).for_slot_holder())
}

struct HeartbeatRequest {
    token: SessionToken,
    key: Option<LicenseKey>,
}

impl FromFields for HeartbeatRequest {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        let token = token(fields)?;
        let key = licenses::client::key(fields)?;
        Ok(Self { token, key })
    }
}

fn token(fields: &mut Fields) -> Result<SessionToken> {
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
            update_available: accepted.version < settings.config.current_version,
            server_time: now.wall.rfc3339(),
        }
    }
}

/// Applies the rate limits to a request that names a session.
async fn apply_rate_limits_to_session(
    program: &Program,
    token: SessionToken,
    key: GivenKey,
    db: &Db,
    live: &LiveSessions,
) -> Result<()> {
    let known = live.is_known(&token, &key);
    let named = match &key {
        GivenKey::None => Some(NamedCaller::session(token.as_bytes(), None, known)),
        GivenKey::Sent(Some(key)) => {
            let key = Some(key.as_bytes());
            Some(NamedCaller::session(token.as_bytes(), key, known))
        }
        GivenKey::Sent(None) => None,
    };
    let look_up = || db.read(move |reader| super::look_up_caller(reader, &token, &key));
    program.admit(named, look_up).await
}

/// Keeps a session alive.
#[post("/session/heartbeat", data = "<body>")]
async fn heartbeat(
    program: Program,
    body: Body<HeartbeatRequest>,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
) -> Reply {
    let Body(HeartbeatRequest { token, key }) = body;
    apply_rate_limits_to_session(&program, token, GivenKey::Sent(key), db, live).await?;
    let Program { now, settings, .. } = program;
    // A text that cannot be a key needs no lookup.
    let key = key.ok_or(licenses::Refusal::NotFound)?;
    let accepted = super::heartbeat(db, live, &settings, (token, key), now).await?;
    ApiResponse::ok(&HeartbeatResponse::new(accepted, &settings, now))
}

struct EndRequest {
    token: SessionToken,
    key: GivenKey,
}

impl FromFields for EndRequest {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        let token = token(fields)?;
        let key = licenses::client::key_if_given(fields)?;
        Ok(Self {
            token,
            key: key.map_or(GivenKey::None, |text| {
                GivenKey::Sent(LicenseKey::parse(&text))
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
    /// The response for a session that ended like this.
    pub fn new(end_reason: EndReason) -> Self {
        let status = "ended";
        Self { status, end_reason }
    }
}

/// Ends a session.
#[post("/session/end", data = "<body>")]
async fn end(
    program: Program,
    body: Body<EndRequest>,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
) -> Reply {
    let Body(EndRequest { token, key }) = body;
    apply_rate_limits_to_session(&program, token, key, db, live).await?;
    let (live, now) = (live.inner().clone(), program.now);
    let end_reason = db
        .write("sessions.end", move |tx| {
            super::end(tx, &live, &token, &key, now)
        })
        .await?;
    ApiResponse::ok(&EndResponse::new(end_reason))
}

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![start, heartbeat, end]
}
