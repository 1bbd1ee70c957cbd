//! The door for shipped programs: who is let in at all, and `GET /api/license/version`.

use std::sync::Arc;
use std::time::Duration;

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Route, get, routes};
use serde::Serialize;

use super::{Current, Snapshot, VersionNews};
use crate::clock::Now;
use crate::db::Db;
use crate::error::{Error, Fault, Refused, Result};
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::{Group, Limiter, Source};
use crate::text;
use crate::version::Version;
use crate::web::connection::Connection;
use crate::web::guards::{AskedWell, Moment};
use crate::web::reply::{self, Answer, Reply, Trial};

/// Longest key that is looked at.
const API_KEY_MAX: usize = 200;
/// Longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_MAX: usize = 64;

/// A program that carries the API key and does not call too often.
pub struct Program {
    /// When it called.
    pub now: Now,
    /// What holds for it.
    pub settings: Arc<Snapshot>,
    idempotency_key: Option<String>,
    /// Where it called from.
    pub address: String,
}

/// A program that may be refused for what others behind its address guessed, unless its session is known:
/// guessing never starves heartbeats.
pub struct Running {
    /// As for any other.
    pub program: Program,
    /// To answer with, where the session turns out to be unknown.
    pub suspicion: Option<Refused>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Running {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match running(request).await {
            Ok(running) => Outcome::Success(running),
            Err(error) => {
                reply::stash(request, error);
                Outcome::Error((Status::Forbidden, ()))
            }
        }
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Program {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let judged = running(request)
            .await
            .and_then(|running| match running.suspicion {
                Some(refused) => Err(refused.into()),
                None => Ok(running.program),
            });
        match judged {
            Ok(program) => Outcome::Success(program),
            Err(error) => {
                reply::stash(request, error);
                Outcome::Error((Status::Forbidden, ()))
            }
        }
    }
}

/// Rate limit, then API key: the order of the contract.
async fn running(request: &Request<'_>) -> Result<Running> {
    let missing = |what| Error::Internal {
        doing: "find a part of the server",
        source: From::from(what),
    };
    let rocket = request.rocket();
    let db = rocket.state::<Db>().ok_or_else(|| missing("database"))?;
    let current = rocket
        .state::<Arc<Current>>()
        .ok_or_else(|| missing("client configuration"))?;
    let limiter = rocket
        .state::<Arc<Limiter>>()
        .ok_or_else(|| missing("rate limiter"))?;
    let Moment(now) = Moment::of(request);
    let settings = current.get(db).await?;
    let address = ClientAddress::of(request);
    let source = Source::from(address);
    let (calls, failures) = (settings.client_limit, settings.failure_limit);
    Trial::begin(request, source, calls, failures);
    let may_fail = limiter.may_fail(Group::ClientFailures, source, failures, now.tick);
    let suspicion = may_fail.err().map(reply::rate_limited);
    let key = request.headers().get_one("x-api-key").unwrap_or_default();
    // Keys are copied into settings files with quotation marks and spaces around them; no key has any.
    let key = key.trim_matches(|c| text::is_leftover(c) || matches!(c, '"' | '\''));
    let key = if key.len() <= API_KEY_MAX { key } else { "" };
    // Only who has the key draws on the calls of his address: strangers must not use up what the
    // programs behind the same address need for their heartbeats.
    if let Err(refusal) = settings.admit(key, now.wall) {
        let left = limiter.look(Group::Client, source, calls, now.tick);
        left.map_err(reply::rate_limited)?;
        return Err(suspicion.unwrap_or_else(|| refusal.into()).into());
    }
    let silence = Duration::from_secs(settings.config.session_timeout.into());
    Connection::stays_open(request, silence);
    Trial::charge(request, limiter, now).map_err(reply::rate_limited)?;
    let idempotency_key = request
        .headers()
        .get_one("idempotency-key")
        .map(str::to_owned);
    let address = address.to_string();
    Ok(Running {
        program: Program {
            now,
            settings,
            idempotency_key,
            address,
        },
        suspicion,
    })
}

impl Program {
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
    versions: &'a VersionNews,
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
    let news = program.settings.news_for(version);
    let (whats_new, download_url) = (&news.whats_new, &news.download_url);
    Answer::ok(&News {
        versions: &news,
        whats_new,
        download_url,
    })
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![version]
}
