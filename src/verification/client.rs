//! Handler for client programs: `POST /api/license/verify`.

use std::collections::BTreeMap;

use rocket::{Request, Route, post, request, routes};
use serde::Serialize;
use serde_json::{Map, Value};

use super::VerifiedLicense;
use crate::app::App;
use crate::config::Language;
use crate::devices::ClientIdentity;
use crate::devices::client::apply_rate_limits;
use crate::error::Refused;
use crate::i18n::Catalog;
use crate::licenses::client::LicenseTerms;
use crate::products::LicensedVersionInfo;
use crate::products::client::Program;
use crate::web::body::Body;
use crate::web::guards::ResponseLanguage;
use crate::web::reply::{ApiResponse, Reply};

/// The code of a verification that is not refused.
const VALID: &str = "valid";

/// Describes the result of a verification in the caller's language.
struct ResultTexts<'r> {
    catalog: Option<&'r Catalog>,
    language: Language,
}

impl ResultTexts<'_> {
    /// The sentence for a verification with this result; empty if there is no catalog.
    fn detail(&self, refusal: Option<&Refused>) -> String {
        let Some(catalog) = self.catalog else {
            return String::new();
        };
        let (_title, detail) = match refusal {
            Some(refused) => catalog.refusal(self.language, refused),
            None => catalog.problem(self.language, VALID, &Map::new()),
        };
        detail
    }
}

#[rocket::async_trait]
impl<'r> request::FromRequest<'r> for ResultTexts<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> request::Outcome<Self, Self::Error> {
        let ResponseLanguage(language) = ResponseLanguage::of(request);
        request::Outcome::Success(Self {
            catalog: request.rocket().state(),
            language,
        })
    }
}

/// The response to a verification.
#[derive(Serialize)]
struct VerifyResponse {
    valid: bool,
    code: &'static str,
    detail: String,
    /// The members that `session/start` would add to the refusal.
    #[serde(flatten)]
    members: Map<String, Value>,
    license: Option<LicenseResponse>,
    session_active: bool,
    version: LicensedVersionInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_flags: Option<BTreeMap<String, bool>>,
    lease: Option<String>,
}

#[derive(Serialize)]
struct LicenseResponse {
    #[serde(flatten)]
    terms: LicenseTerms,
    device_limit: u32,
    device_count: u32,
}

impl LicenseResponse {
    fn new(verified: &VerifiedLicense) -> Self {
        Self {
            terms: LicenseTerms::of(verified.license()),
            device_limit: verified.license().device_limit,
            device_count: verified.device_count(),
        }
    }
}

/// Verifies a license on a device.
#[post("/verify", data = "<body>")]
async fn verify(
    program: Program,
    body: Body<ClientIdentity>,
    texts: ResultTexts<'_>,
    app: &App,
) -> Reply {
    let Body(client) = body;
    apply_rate_limits(&program, client.license_key, &client.hardware_id, &app.db).await?;
    let live = app.live_sessions.at(program.now);
    let verified = app.verifier.verify(live, &program.settings, client);
    let verification = verified.await?;
    let lease = verification.lease.as_ref();
    let lease = lease.map(|lease| lease.signed(&app.signer.key_pair()));
    let refusal = verification.refusal.clone();
    let (code, members) = verification.refusal.map_or_else(
        || (VALID, Map::new()),
        |refused| (refused.code, *refused.members),
    );
    let response = ApiResponse::ok(&VerifyResponse {
        valid: refusal.is_none(),
        code,
        detail: texts.detail(refusal.as_ref()),
        members,
        license: verification.license.as_ref().map(LicenseResponse::new),
        session_active: verification.session_active,
        version: verification.version,
        feature_flags: verification.feature_flags,
        lease: lease.transpose()?,
    })?;
    let response = response.with_refusal(refusal);
    // An unknown key is a normal response here, but still counts as a failed attempt.
    Ok(match verification.license {
        None => response.counted_as_failure(),
        Some(license) if license.holds_slot() => response.for_slot_holder(),
        Some(_) => response,
    })
}

/// The routes of this module for programs.
pub fn routes() -> Vec<Route> {
    routes![verify]
}
