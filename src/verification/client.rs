//! Handler for client programs: `POST /api/license/verify`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rocket::{Request, Route, State, post, request, routes};
use serde::Serialize;
use serde_json::Map;

use super::{Verification, VerifiedLicense};
use crate::config::Language;
use crate::db::Db;
use crate::devices::ClientIdentity;
use crate::devices::client::apply_rate_limits;
use crate::i18n::Catalog;
use crate::products::VersionInfo;
use crate::products::client::Program;
use crate::security::signing::Signer;
use crate::sessions::LiveSessions;
use crate::web::body::Body;
use crate::web::guards::Lang;
use crate::web::reply::{ApiResponse, Reply};

/// Translates the result of a verification into the caller's language.
struct Sentences<'r> {
    catalog: Option<&'r Catalog>,
    language: Language,
}

#[rocket::async_trait]
impl<'r> request::FromRequest<'r> for Sentences<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> request::Outcome<Self, Self::Error> {
        let Lang(language) = Lang::of(request);
        request::Outcome::Success(Self {
            catalog: request.rocket().state(),
            language,
        })
    }
}

#[derive(Serialize)]
struct Verified<'a> {
    valid: bool,
    code: &'static str,
    detail: String,
    license: &'a Option<VerifiedLicense>,
    session_active: bool,
    version: VersionInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_flags: Option<BTreeMap<String, bool>>,
    lease: Option<String>,
}

/// Verifies a license on a device.
#[post("/verify", data = "<body>")]
async fn verify(
    program: Program,
    body: Body<ClientIdentity>,
    sentences: Sentences<'_>,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
    signer: &State<Arc<Signer>>,
) -> Reply {
    let Body(claim) = body;
    apply_rate_limits(&program, claim.license_key, &claim.hardware_id, db).await?;
    let (live, now) = (live.inner().clone(), program.now);
    let settings = program.settings.clone();
    let version = settings.version_info(claim.version);
    let verification = db
        .read(move |reader| super::verify(reader, &live, &settings, &claim, now))
        .await?;
    let Verification {
        refusal,
        license,
        holds_slot,
        session_active,
        feature_flags,
        lease,
    } = verification;
    let lease = lease
        .map(|lease| lease.signed(&signer.key_pair()))
        .transpose()?;
    let valid = refusal.is_none();
    let (code, members) = refusal.map_or_else(
        || ("valid", Map::new()),
        |refused| (refused.code, refused.members),
    );
    let text = |catalog: &Catalog| catalog.problem(sentences.language, code, &members);
    let detail = sentences.catalog.map(text).unwrap_or_default().1;
    let response = ApiResponse::ok(&Verified {
        valid,
        code,
        detail,
        license: &license,
        session_active,
        version,
        feature_flags,
        lease,
    })?;
    // An unknown key is a normal response here, but still counts as a failed attempt.
    Ok(match (license, holds_slot) {
        (None, _) => response.counted_as_failure(),
        (Some(_), true) => response.for_slot_holder(),
        (Some(_), false) => response,
    })
}

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![verify]
}
