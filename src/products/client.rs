//! Handlers for shipped programs: the guard that checks the API key, and `GET /api/license/version`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Route, get, routes};
use serde::Serialize;

use super::{ProgramSettings, VersionInfo};
use crate::app::App;
use crate::clock::Now;
use crate::error::{Error, Fault, Result};
use crate::id::ProductId;
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::{HourlyQuota, LookupResult};
use crate::text;
use crate::version::Version;
use crate::web::connection::RequestContext;
use crate::web::guards::{RequestTime, ValidNonce};
use crate::web::rate_limiting::{CallRules, NamedCaller, RateLimitContext};
use crate::web::reply::{ApiResponse, Reply};
use crate::web::stash::stash;

/// Longest API key that is checked, in bytes.
const API_KEY_MAX: usize = 200;
/// Longest `Idempotency-Key`, in bytes.
const IDEMPOTENCY_KEY_MAX: usize = 64;

/// A program with a valid API key. Its rate limits are not checked yet: see [`Program::admit`].
pub struct Program {
    /// When the request arrived.
    pub now: Now,
    /// The settings of its product at that moment.
    pub settings: Arc<ProgramSettings>,
    idempotency_key: Option<String>,
    /// The address of the client.
    pub address: ClientAddress,
    rate_limit: Arc<RateLimitContext>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Program {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match program(request).await {
            Ok(program) => Outcome::Success(program),
            Err(error) => {
                stash(request, error);
                Outcome::Error((Status::Forbidden, ()))
            }
        }
    }
}

/// The product of the valid API key of a request.
#[derive(Default)]
struct ProductOfCall(OnceLock<ProductId>);

/// The product of the API key of `request`; `None` without a valid one.
pub fn product_of(request: &Request<'_>) -> Option<ProductId> {
    let product = request.local_cache(ProductOfCall::default);
    product.0.get().copied()
}

/// Checks the API key. By the API's contract, `rate_limited` takes precedence over other refusals. For a call with a
/// valid key, [`Program::admit`] checks the rate limits, because they depend on the license or session that the body
/// names, and a guard has not read the body.
async fn program(request: &Request<'_>) -> Result<Program> {
    let app = App::of(request)?;
    let RequestTime(now) = RequestTime::of(request);
    let shared = app.program_settings.shared(&app.db).await?;
    let rules = CallRules {
        calls: shared.limits.client,
        failures: shared.limits.client_failures,
        trials_per_hour: shared.limits.trials_per_hour,
    };
    let rate_limit = RateLimitContext::attach(request, app.limiter.clone(), rules, now.tick);
    let key = presented_key(request);
    let product = match shared.api_keys.product_of(key, now.wall) {
        Ok(product) => product,
        Err(refusal) => {
            rate_limit.count_without_api_key()?;
            return Err(refusal.into());
        }
    };
    request
        .local_cache(ProductOfCall::default)
        .0
        .get_or_init(|| product);
    let settings = app.program_settings.get(&app.db, product).await?;
    let idle = Duration::from_secs(settings.config.session_timeout.into());
    RequestContext::keep_open_for(request, idle);
    let idempotency_key = request
        .headers()
        .get_one("idempotency-key")
        .map(str::to_owned);
    let address = ClientAddress::of(request);
    Ok(Program {
        now,
        settings,
        idempotency_key,
        address,
        rate_limit,
    })
}

/// The API key that the request presents; empty if there is none, or none that could be valid.
pub fn presented_key<'r>(request: &'r Request<'_>) -> &'r str {
    let key = request.headers().get_one("x-api-key").unwrap_or_default();
    // People copy keys with quotation marks and spaces around them; no key contains any.
    let key = key.trim_matches(|c| text::is_trimmed(c) || matches!(c, '"' | '\''));
    if key.len() <= API_KEY_MAX { key } else { "" }
}

impl Program {
    /// Checks the rate limits, by the license or session that the call `named`; see [`RateLimitContext::admit`].
    ///
    /// # Errors
    /// `rate_limited`, and the errors of `look_up`.
    pub async fn admit<F>(
        &self,
        named: Option<NamedCaller>,
        look_up: impl FnOnce() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<LookupResult>>,
    {
        self.rate_limit.admit(named, look_up).await
    }

    /// Limits how many new trials start at the address of the request.
    pub fn trial_quota(&self) -> HourlyQuota {
        self.rate_limit.trial_quota()
    }

    /// The `Idempotency-Key`, if the request has one. Only the calls that support it check it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not 1 to 64 visible characters.
    pub fn idempotency_key(&self) -> Result<Option<String>> {
        let visible = |key: &str| key.bytes().all(|byte| byte.is_ascii_graphic());
        match &self.idempotency_key {
            Some(key) if !(1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) || !visible(key) => {
                let problem = "must be 1..64 visible characters";
                Err(Error::invalid("Idempotency-Key", problem))
            }
            given => Ok(given.clone()),
        }
    }
}

#[derive(Serialize)]
struct VersionResponse<'a> {
    #[serde(flatten)]
    versions: &'a VersionInfo,
    whats_new: &'a Option<String>,
    download_url: &'a Option<String>,
}

/// Whether there is an update for the version of the program.
#[get("/version?<version>")]
fn version(program: Program, _asked: ValidNonce, version: Option<&str>) -> Reply {
    let invalid = |problem: &str| Error::invalid("version", problem);
    let version = version.ok_or_else(|| Error::field_fault("version", Fault::Missing))?;
    if version.is_empty() {
        return Err(Error::field_fault("version", Fault::Empty).into());
    }
    let version: Version = version.parse().map_err(invalid)?;
    program.rate_limit.count_unnamed()?;
    let info = program.settings.version_info(version);
    let (whats_new, download_url) = (&info.whats_new, &info.download_url);
    ApiResponse::ok(&VersionResponse {
        versions: &info,
        whats_new,
        download_url,
    })
}

/// The routes for programs.
pub fn routes() -> Vec<Route> {
    routes![version]
}
