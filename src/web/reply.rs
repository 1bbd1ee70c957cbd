//! JSON responses: a document, a problem (RFC 9457), or the bare 503 for everything that is not served.

use std::sync::Arc;

use rocket::Request;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{self, Responder, Response};
use rocket::{Catcher, catch, catchers};
use serde::Serialize;
use serde_json::{Map, Value};

use super::connection::Connection;
use super::guards::{Lang, Moment};
use super::rate_limiting::RateLimitContext;
use crate::config::Language;
use crate::error::{Doing, Error, Fault, Refused};
use crate::i18n::Catalog;
use crate::metrics::RefusalCounter;
use crate::security::rate_limit::RATE_LIMITED;

/// What a JSON handler returns.
pub type Reply = Result<ApiResponse, Problem>;

/// A successful response with a JSON document.
#[derive(Debug)]
pub struct ApiResponse {
    status: Status,
    body: String,
    rate_limit_effect: RateLimitEffect,
}

impl ApiResponse {
    /// 200 with `value`.
    ///
    /// # Errors
    /// If `value` cannot be serialized.
    pub fn ok(value: &impl Serialize) -> Reply {
        Ok(Self::ok_json(
            serde_json::to_string(value).doing("write an answer")?,
        ))
    }

    /// 200 with an already serialized document.
    pub fn ok_json(body: String) -> Self {
        Self {
            status: Status::Ok,
            body,
            rate_limit_effect: RateLimitEffect::None,
        }
    }

    /// 201 with an already serialized document.
    pub fn created_json(body: String) -> Self {
        Self {
            status: Status::Created,
            body,
            rate_limit_effect: RateLimitEffect::None,
        }
    }

    /// Marks this as a response to a device that holds a slot of the license that it named. The rate limiter remembers
    /// the device.
    #[must_use]
    pub fn for_slot_holder(mut self) -> Self {
        self.rate_limit_effect = RateLimitEffect::RememberDevice;
        self
    }

    /// Counts the request as a failed attempt against the address of its caller.
    #[must_use]
    pub fn counted_as_failure(mut self) -> Self {
        self.rate_limit_effect = RateLimitEffect::CountFailure;
        self
    }
}

impl<'r> Responder<'r, 'static> for ApiResponse {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        if let Some(context) = RateLimitContext::of(request) {
            match self.rate_limit_effect {
                RateLimitEffect::RememberDevice => context.remember_device(),
                RateLimitEffect::CountFailure => context.count_failure(),
                RateLimitEffect::None => {}
            }
            // A success that is not a failed attempt proves that the named license or session exists.
            if context.names_caller()
                && !matches!(self.rate_limit_effect, RateLimitEffect::CountFailure)
            {
                Connection::mark_caller_identified(request);
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

/// An [`Error`] that is sent as a problem document (RFC 9457).
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
/// `Retry-After` in seconds while the server is unavailable, for example because the disk is full.
pub(super) const UNAVAILABLE_RETRY_S: u32 = 2;

/// The refusal of an invalid field, and what selects the exact sentence for it.
pub fn invalid_field(field: &'static str, problem: &str, fault: Fault) -> (Refused, InvalidField) {
    log::debug!("{field} {problem}");
    let refused = Refused::plain("invalid_field").with("field", field);
    (refused, InvalidField(field, fault))
}

/// An invalid field, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct InvalidField(&'static str, Fault);

/// The status of `error` and the part of it that the caller may see.
fn to_public(error: Error) -> (Status, Refused, Option<InvalidField>) {
    let mut invalid = None;
    let refused = match error {
        Error::Refused(refused) => refused,
        Error::Invalid {
            field,
            problem,
            fault,
        } => {
            let (refused, invalid_field) = invalid_field(field, &problem, fault);
            invalid = Some(invalid_field);
            refused
        }
        Error::Unavailable { reason } => {
            // The writer has logged it once. One line per request could fill the rest of the disk.
            log::debug!("unavailable: {reason}");
            Refused::plain("unavailable").with("retry_after", UNAVAILABLE_RETRY_S)
        }
        // `db` has logged what the operator should do.
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
        invalid,
    )
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let error = match RateLimitContext::of(request) {
            Some(context) => context.count_error(self.0),
            None => self.0,
        };
        let (status, refused, invalid) = to_public(error);
        count(request, status, refused.code);
        let Lang(language) = Lang::of(request);
        let (title, detail) = title_and_detail(request, language, &refused, invalid);
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

/// Counts a refused request in the metrics. Internal errors are not refusals; they are in the log.
fn count(request: &Request<'_>, status: Status, code: &'static str) {
    if status != Status::InternalServerError
        && let Some(counter) = request.rocket().state::<Arc<RefusalCounter>>()
    {
        counter.count(code, Moment::of(request).0.wall);
    }
}

/// The title and the detail of `refused` in `language`. For an invalid field, the detail says what is valid.
pub fn title_and_detail(
    request: &Request<'_>,
    language: Language,
    refused: &Refused,
    invalid: Option<InvalidField>,
) -> (String, String) {
    let Some(catalog) = request.rocket().state::<Catalog>() else {
        return (refused.code.to_owned(), refused.code.to_owned());
    };
    let (title, detail) = catalog.refusal(language, refused);
    let exact =
        invalid.and_then(|InvalidField(field, fault)| catalog.fault(language, field, fault));
    (title, exact.unwrap_or(detail))
}

/// How a response affects the rate limits of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RateLimitEffect {
    /// The device holds a slot of its license; remember it.
    RememberDevice,
    None,
    /// The caller may be guessing keys; count a failed attempt.
    CountFailure,
}

/// The error of a guard. Rocket calls the catcher without it, so it is stored with the request.
#[derive(Default)]
struct Stash(std::sync::Mutex<Option<Error>>);

/// Stores the error of a guard for the catcher.
pub fn stash(request: &Request<'_>, error: Error) {
    let stash = request.local_cache(Stash::default);
    *stash
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
}

/// The bare 503 for everything that is not served, so that a wrong path cannot be told from a wrong method.
#[derive(Debug)]
pub struct NotServed;

impl<'r> Responder<'r, 'static> for NotServed {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build().status(Status::ServiceUnavailable).ok()
    }
}

/// A 202 that reveals as little as [`NotServed`].
#[derive(Debug)]
pub struct Accepted;

impl<'r> Responder<'r, 'static> for Accepted {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build().status(Status::Accepted).ok()
    }
}

/// [`Accepted`] for `Ok(true)`. Internal errors are logged only.
///
/// # Errors
/// [`NotServed`] for everything else.
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

/// Takes the error that [`stash`] has stored, if any.
pub fn take_stashed(request: &Request<'_>) -> Option<Error> {
    let stash = request.local_cache(Stash::default);
    stash
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take()
}

#[catch(default)]
fn not_served(_: Status, request: &Request<'_>) -> Result<NotServed, Problem> {
    take_stashed(request).map_or(Ok(NotServed), |error| Err(Problem(error)))
}

/// The catcher for requests that no route answers.
pub fn catchers() -> Vec<Catcher> {
    catchers![not_served]
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
