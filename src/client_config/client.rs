//! The door for shipped programs: who is let in at all, and `GET /api/license/version`.

use std::sync::Arc;
use std::time::Duration;

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Route, get, routes};
use serde::Serialize;

use super::{ProgramSettings, ProgramSettingsCache, VersionInfo};
use crate::clock::Now;
use crate::db::Db;
use crate::error::{Error, Fault, Result};
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::{Limiter, Standing};
use crate::text;
use crate::version::Version;
use crate::web::connection::Connection;
use crate::web::guards::{AskedWell, Moment};
use crate::web::reply::{self, ApiResponse, Reply};
use crate::web::trial::{Named, RateLimitContext};

/// Longest key that is looked at.
const API_KEY_MAX: usize = 200;
/// Longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_MAX: usize = 64;

/// A program that carries the API key. It calls too often, perhaps: see [`Program::enter`].
pub struct Program {
    /// When it called.
    pub now: Now,
    /// What holds for it.
    pub settings: Arc<ProgramSettings>,
    idempotency_key: Option<String>,
    /// Where it called from.
    pub address: String,
    trial: Arc<RateLimitContext>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Program {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match program(request).await {
            Ok(program) => Outcome::Success(program),
            Err(error) => {
                reply::stash(request, error);
                Outcome::Error((Status::Forbidden, ()))
            }
        }
    }
}

/// Judges the API key. Rate limits come first in the order of the contract: a call with the key is let in
/// by [`Program::enter`], which a guard cannot do, since it takes what the body names.
async fn program(request: &Request<'_>) -> Result<Program> {
    let missing = |what| Error::Internal {
        doing: "find a part of the server",
        source: From::from(what),
    };
    let rocket = request.rocket();
    let db = rocket.state::<Db>().ok_or_else(|| missing("database"))?;
    let current = rocket
        .state::<Arc<ProgramSettingsCache>>()
        .ok_or_else(|| missing("client configuration"))?;
    let limiter = rocket
        .state::<Arc<Limiter>>()
        .ok_or_else(|| missing("rate limiter"))?;
    let Moment(now) = Moment::of(request);
    let settings = current.get(db).await?;
    let address = ClientAddress::of(request);
    let rules = (settings.client_limit, settings.failure_limit);
    let trial = RateLimitContext::begin(request, limiter.clone(), address.into(), rules, now.tick);
    let key = request.headers().get_one("x-api-key").unwrap_or_default();
    // Keys are copied into settings files with quotation marks and spaces around them; no key has any.
    let key = key.trim_matches(|c| text::is_leftover(c) || matches!(c, '"' | '\''));
    let key = if key.len() <= API_KEY_MAX { key } else { "" };
    if let Err(refusal) = settings.check_api_key(key, now.wall) {
        trial.without_api_key()?;
        return Err(refusal.into());
    }
    let silence = Duration::from_secs(settings.config.session_timeout.into());
    Connection::stays_open(request, silence);
    let idempotency_key = request
        .headers()
        .get_one("idempotency-key")
        .map(str::to_owned);
    let address = address.to_string();
    Ok(Program {
        now,
        settings,
        idempotency_key,
        address,
        trial,
    })
}

impl Program {
    /// Lets the call in by what it `named`; see [`RateLimitContext::enter`].
    ///
    /// # Errors
    /// `rate_limited`, and what `look_up` fails with.
    pub async fn enter<F>(&self, named: Option<Named>, look_up: impl FnOnce() -> F) -> Result<()>
    where
        F: Future<Output = Result<Standing>>,
    {
        self.trial.enter(named, look_up).await
    }

    /// Its `Idempotency-Key`, if it sent one. For the calls that know it; the others do not look.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is not 1 to 64 visible characters.
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
struct News<'a> {
    #[serde(flatten)]
    versions: &'a VersionInfo,
    whats_new: &'a Option<String>,
    download_url: &'a Option<String>,
}

/// What is new since the caller's version.
#[get("/version?<version>")]
fn version(program: Program, _asked: AskedWell, version: Option<&str>) -> Reply {
    let wrong = |problem: &str| Error::invalid("version", problem);
    let version = version.ok_or_else(|| Error::faulty("version", Fault::Missing))?;
    if version.is_empty() {
        return Err(Error::faulty("version", Fault::Empty).into());
    }
    let version: Version = version.parse().map_err(wrong)?;
    program.trial.enter_unnamed()?;
    let news = program.settings.version_info(version);
    let (whats_new, download_url) = (&news.whats_new, &news.download_url);
    ApiResponse::ok(&News {
        versions: &news,
        whats_new,
        download_url,
    })
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![version]
}
