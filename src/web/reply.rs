//! Turns what a verb returned into a status and a body; the only place that knows both.

use std::sync::Arc;

use rocket::Request;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{self, Responder, Response};
use rocket::{Catcher, catch, catchers};
use serde::Serialize;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::guards::{Lang, Moment};
use super::trial::RateLimitContext;
use crate::config::Language;
use crate::error::{Doing, Error, Fault, Refused};
use crate::i18n::Catalog;
use crate::metrics::RefusalCounter;
use crate::security::rate_limit::RATE_LIMITED;

/// What a JSON door answers.
pub type Reply = Result<ApiResponse, Problem>;

/// A JSON document on its way out.
#[derive(Debug)]
pub struct ApiResponse {
    status: Status,
    body: String,
    verdict: Verdict,
}

impl ApiResponse {
    /// 200 with `value`.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON.
    pub fn ok(value: &impl Serialize) -> Reply {
        Ok(Self::ok_json(
            serde_json::to_string(value).doing("write an answer")?,
        ))
    }

    /// 200 with a document that is written already.
    pub fn ok_json(body: String) -> Self {
        Self {
            status: Status::Ok,
            body,
            verdict: Verdict::Plain,
        }
    }

    /// 201 with a document that is written already.
    pub fn created_json(body: String) -> Self {
        Self {
            status: Status::Created,
            body,
            verdict: Verdict::Plain,
        }
    }

    /// The same answer, to a device that holds a slot of the license that it named.
    #[must_use]
    pub fn to_slot_holder(mut self) -> Self {
        self.verdict = Verdict::Slot;
        self
    }

    /// The same answer, counted against its caller as a failure that looks like guessing.
    #[must_use]
    pub fn guessed(mut self) -> Self {
        self.verdict = Verdict::Guess;
        self
    }
}

impl<'r> Responder<'r, 'static> for ApiResponse {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        if let Some(trial) = RateLimitContext::of(request) {
            match self.verdict {
                Verdict::Slot => trial.remember(),
                Verdict::Guess => trial.guessed(),
                Verdict::Plain => {}
            }
            // What does not exist gets a problem for an answer, or counts as a guess.
            if trial.names() && !matches!(self.verdict, Verdict::Guess) {
                Connection::named_what_exists(request);
            }
        }
        let body = self.body.into_bytes();
        Response::build()
            .status(self.status)
            .header(ContentType::JSON)
            .sized_body(body.len(), std::io::Cursor::new(body))
            .ok()
    }
}

/// An [`Error`] on its way out, as RFC 9457 has it.
#[derive(Debug)]
pub struct Problem(Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl<R: Into<Refused>> From<R> for Problem {
    fn from(refusal: R) -> Self {
        Self(Error::Refused(refusal.into()))
    }
}

/// The status of every code of the client API.
const STATUS: &[(&str, Status)] = &[
    ("malformed_json", Status::BadRequest),
    ("invalid_api_key", Status::Unauthorized),
    ("license_suspended", Status::Forbidden),
    ("license_not_yet_valid", Status::Forbidden),
    ("license_expired", Status::Forbidden),
    ("device_not_activated", Status::Forbidden),
    ("version_too_old", Status::Forbidden),
    ("license_not_found", Status::NotFound),
    ("session_not_found", Status::NotFound),
    ("device_limit_reached", Status::Conflict),
    ("session_active", Status::Conflict),
    ("session_ended", Status::Gone),
    ("payload_too_large", Status::PayloadTooLarge),
    ("unsupported_media_type", Status::UnsupportedMediaType),
    ("invalid_field", Status::UnprocessableEntity),
    (RATE_LIMITED, Status::TooManyRequests),
    ("unavailable", Status::ServiceUnavailable),
];
/// When to come back while the file takes no write, in seconds.
pub(super) const UNAVAILABLE_RETRY_S: u32 = 2;

/// The refusal of a field that is wrong, and what the texts know it by.
pub fn invalid_field(field: &'static str, problem: &str, fault: Fault) -> (Refused, Wrong) {
    log::debug!("{field} {problem}");
    let refused = Refused::plain("invalid_field").with("field", field);
    (refused, Wrong(field, fault))
}

/// A field, and in which way it is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Wrong(&'static str, Fault);

/// What the caller may know of `error`, and its status.
fn public(error: Error) -> (Status, Refused, Option<Wrong>) {
    let mut wrong = None;
    let refused = match error {
        Error::Refused(refused) => refused,
        Error::Invalid {
            field,
            problem,
            fault,
        } => {
            let (refused, known) = invalid_field(field, &problem, fault);
            wrong = Some(known);
            refused
        }
        Error::Unavailable { reason } => {
            // The writer has said so once; a flood of requests must not fill what is left of the disk.
            log::debug!("unavailable: {reason}");
            Refused::plain("unavailable").with("retry_after", UNAVAILABLE_RETRY_S)
        }
        // `db` has said what to do.
        Error::Damaged { .. } => {
            Refused::plain("unavailable").with("retry_after", UNAVAILABLE_RETRY_S)
        }
        failure => {
            log::error!("{failure}");
            return (
                Status::InternalServerError,
                Refused::plain("internal"),
                None,
            );
        }
    };
    let status = STATUS.iter().find(|(code, _)| *code == refused.code);
    (
        status.map_or(Status::InternalServerError, |(_, status)| *status),
        refused,
        wrong,
    )
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let error = match RateLimitContext::of(request) {
            Some(trial) => trial.judge(self.0),
            None => self.0,
        };
        let (status, refused, wrong) = public(error);
        count(request, status, refused.code);
        let Lang(language) = Lang::of(request);
        let (title, detail) = texts(request, language, &refused, wrong);
        let retry = refused.members.get("retry_after").map(ToString::to_string);
        let mut document = Map::new();
        document.insert("type".to_owned(), "about:blank".into());
        document.insert("title".to_owned(), title.into());
        document.insert("status".to_owned(), status.code.into());
        document.insert("code".to_owned(), refused.code.into());
        document.insert("detail".to_owned(), detail.into());
        document.extend(refused.members);
        let body = Value::Object(document).to_string().into_bytes();
        let mut response = Response::build();
        response
            .status(status)
            .header(ContentType::new("application", "problem+json"))
            .raw_header("Content-Language", language.tag())
            .sized_body(body.len(), std::io::Cursor::new(body));
        if let Some(retry) = retry {
            response.header(Header::new("Retry-After", retry));
        }
        response.ok()
    }
}

/// Counts a program that was refused. What is our own fault is no refusal, but stands in the log.
fn count(request: &Request<'_>, status: Status, code: &'static str) {
    if status != Status::InternalServerError
        && let Some(tally) = request.rocket().state::<Arc<RefusalCounter>>()
    {
        tally.count(code, Moment::of(request).0.wall);
    }
}

/// The title and the sentence of `refused` in the caller's language; of a field that is wrong, what it has to
/// be like.
pub fn texts(
    request: &Request<'_>,
    language: Language,
    refused: &Refused,
    wrong: Option<Wrong>,
) -> (String, String) {
    let Some(catalog) = request.rocket().state::<Catalog>() else {
        return (refused.code.to_owned(), refused.code.to_owned());
    };
    let (title, detail) = catalog.refusal(language, refused);
    let exact = wrong.and_then(|Wrong(field, fault)| catalog.fault(language, field, fault));
    (title, exact.unwrap_or(detail))
}

/// What an answer says of who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It holds a slot of its license: a caller to be remembered.
    Slot,
    /// Nothing.
    Plain,
    /// It may be guessing.
    Guess,
}

/// Room for what a guard could not say: Rocket hands a guard's failure to a catcher without its cause.
#[derive(Default)]
struct Stash(std::sync::Mutex<Option<Error>>);

/// Keeps the cause of a guard's failure for the catcher.
pub fn stash(request: &Request<'_>, error: Error) {
    let stash = request.local_cache(Stash::default);
    *stash
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
}

/// One bare 503 for whatever is not served: nothing tells a wrong path from a wrong method.
#[derive(Debug)]
pub struct NotServed;

impl<'r> Responder<'r, 'static> for NotServed {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build().status(Status::ServiceUnavailable).ok()
    }
}

/// 202, with as little to see as [`NotServed`].
#[derive(Debug)]
pub struct Accepted;

impl<'r> Responder<'r, 'static> for Accepted {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build().status(Status::Accepted).ok()
    }
}

/// Yes, or nothing: a failure of ours is for the log alone.
///
/// # Errors
/// [`NotServed`] for everything but a yes.
pub fn accepted(outcome: crate::error::Result<bool>) -> Result<Accepted, NotServed> {
    match outcome {
        Ok(true) => Ok(Accepted),
        Ok(false) => Err(NotServed),
        Err(error) => {
            if let Error::Internal { .. } = error {
                log::error!("{error}");
            }
            Err(NotServed)
        }
    }
}

/// What was kept, if anything was.
pub fn stashed(request: &Request<'_>) -> Option<Error> {
    let stash = request.local_cache(Stash::default);
    stash
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take()
}

#[catch(default)]
fn nothing(_: Status, request: &Request<'_>) -> Result<NotServed, Problem> {
    stashed(request).map_or(Ok(NotServed), |error| Err(Problem(error)))
}

/// What answers where no route does.
pub fn catchers() -> Vec<Catcher> {
    catchers![nothing]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_and_a_text_in_both_languages() {
        let catalog = Catalog::load(Language::De).unwrap();
        for (code, _) in STATUS {
            for language in [Language::De, Language::En] {
                let (title, detail) = catalog.problem(language, code, &Map::new());
                assert!(title != *code && detail != *code, "{code}");
            }
        }
    }
}
