//! JSON responses: a document, a problem (RFC 9457), or the bare 503 for everything that is not served.

use rocket::Request;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{self, Responder, Response};
use rocket::{Catcher, catch, catchers};
use serde::Serialize;
use serde_json::{Map, Value};

use super::connection::RequestContext;
use super::guards::ResponseLanguage;
use super::not_served::NotServed;
use super::rate_limiting::RateLimitContext;
use super::refusal;
use super::stash::take_stashed;
use crate::config::Language;
use crate::error::{Doing, Error, Fault, RefusalKind, Refused};
use crate::i18n::Catalog;

/// What a JSON handler returns.
pub type Reply = Result<ApiResponse, Problem>;

/// A successful response with a JSON document.
#[derive(Debug)]
pub struct ApiResponse {
    status: Status,
    body: String,
    rate_limit_effect: RateLimitEffect,
    refusal: Option<Refused>,
}

impl ApiResponse {
    /// 200 with `value`.
    ///
    /// # Errors
    /// If `value` cannot be serialized.
    pub fn ok(value: &impl Serialize) -> Reply {
        Ok(Self::ok_json(
            serde_json::to_string(value).doing("write a response")?,
        ))
    }

    /// 200 with an already serialized document.
    pub fn ok_json(body: String) -> Self {
        Self {
            status: Status::Ok,
            body,
            rate_limit_effect: RateLimitEffect::None,
            refusal: None,
        }
    }

    /// 201 with an already serialized document.
    pub fn created_json(body: String) -> Self {
        Self {
            status: Status::Created,
            body,
            rate_limit_effect: RateLimitEffect::None,
            refusal: None,
        }
    }

    /// Marks this as a response to a device that holds a slot of the license that it named. The rate limiter remembers
    /// the device.
    #[must_use]
    pub fn for_slot_holder(mut self) -> Self {
        self.rate_limit_effect = RateLimitEffect::RememberDevice;
        self
    }

    /// Marks this as a response that says why the device cannot use its license, if it does: it is recorded like the
    /// refusal of a request.
    #[must_use]
    pub fn with_refusal(mut self, refusal: Option<Refused>) -> Self {
        self.refusal = refusal;
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
        if let Some(refused) = &self.refusal {
            refusal::note(request, refused);
        }
        if let Some(context) = RateLimitContext::of(request) {
            match self.rate_limit_effect {
                RateLimitEffect::RememberDevice => context.remember_device(),
                RateLimitEffect::CountFailure => context.count_failure(),
                RateLimitEffect::None => {}
            }
            // A successful response that is not counted as a failed attempt proves that the named license or session
            // exists.
            if context.names_caller()
                && !matches!(self.rate_limit_effect, RateLimitEffect::CountFailure)
            {
                RequestContext::mark_caller_identified(request);
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

/// The status of a response that refuses a request.
pub(super) const fn status_of(kind: RefusalKind) -> Status {
    match kind {
        RefusalKind::Malformed => Status::BadRequest,
        RefusalKind::Unauthorized => Status::Unauthorized,
        RefusalKind::Forbidden => Status::Forbidden,
        RefusalKind::NotFound => Status::NotFound,
        RefusalKind::Conflict | RefusalKind::Ambiguous => Status::Conflict,
        RefusalKind::Gone => Status::Gone,
        RefusalKind::TooLarge => Status::PayloadTooLarge,
        RefusalKind::UnsupportedMediaType => Status::UnsupportedMediaType,
        RefusalKind::Invalid => Status::UnprocessableEntity,
        RefusalKind::TooMany => Status::TooManyRequests,
        RefusalKind::Unavailable => Status::ServiceUnavailable,
        RefusalKind::Internal => Status::InternalServerError,
    }
}

/// `Retry-After` in seconds while the server is unavailable, for example because the disk is full.
const UNAVAILABLE_RETRY_S: u32 = 2;

/// The refusal of an invalid field, and what is needed to look up the exact text for it.
fn invalid_field(field: &'static str, problem: &str, fault: Fault) -> (Refused, InvalidField) {
    log::debug!("{field} {problem}");
    let refused = Refused::new(RefusalKind::Invalid, "invalid_field").with("field", field);
    (refused, InvalidField(field, fault))
}

/// An invalid field, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct InvalidField(&'static str, Fault);

/// The part of `error` that the caller may see.
pub(super) fn to_public(error: Error) -> (Refused, Option<InvalidField>) {
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
            // The writer thread of the database has logged it once. One line per request could fill the rest of the disk.
            log::debug!("unavailable: {reason}");
            Refused::new(RefusalKind::Unavailable, "unavailable")
                .with("retry_after", UNAVAILABLE_RETRY_S)
        }
        // `db` has logged what the operator should do.
        Error::Damaged { .. } => Refused::new(RefusalKind::Unavailable, "unavailable")
            .with("retry_after", UNAVAILABLE_RETRY_S),
        Error::NotFound { .. } => Refused::new(RefusalKind::NotFound, "not_found"),
        // Programs send one thing at a time: the first error says enough.
        Error::Several(errors) if !errors.is_empty() => {
            return to_public(
                errors
                    .into_iter()
                    .next()
                    .unwrap_or(Error::Several(Vec::new())),
            );
        }
        failure => {
            log::error!("{failure}");
            Refused::new(RefusalKind::Internal, "internal")
        }
    };
    (refused, invalid)
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let error = match RateLimitContext::of(request) {
            Some(context) => context.count_error(self.0),
            None => self.0,
        };
        let (refused, invalid) = to_public(error);
        let status = status_of(refused.kind);
        refusal::note(request, &refused);
        let ResponseLanguage(language) = ResponseLanguage::of(request);
        let (title, detail) = title_and_detail(request, language, &refused, invalid);
        let retry = refused.members.get("retry_after").map(ToString::to_string);
        let mut document = Map::new();
        document.insert("type".to_owned(), "about:blank".into());
        document.insert("title".to_owned(), title.into());
        document.insert("status".to_owned(), status.code.into());
        document.insert("code".to_owned(), refused.code.into());
        document.insert("detail".to_owned(), detail.into());
        document.extend(*refused.members);
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

/// The title and the detail of `refused` in `language`. For an `invalid` field, the detail describes the expected form.
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
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_a_status_of_its_own_except_for_two_conflicts() {
        let statuses: BTreeSet<u16> = RefusalKind::ALL.map(|kind| status_of(kind).code).into();
        assert_eq!(statuses.len(), RefusalKind::ALL.len() - 1);
        assert!(statuses.iter().all(|status| *status >= 400));
    }

    #[test]
    fn every_code_of_the_client_api_has_a_text_in_both_languages() {
        let catalog = Catalog::load(Language::De).unwrap();
        for code in [
            "malformed_json",
            "invalid_api_key",
            "license_suspended",
            "license_not_yet_valid",
            "license_expired",
            "device_not_activated",
            "version_too_old",
            "trial_not_offered",
            "version_not_covered",
            "license_not_found",
            "session_not_found",
            "device_limit_reached",
            "session_active",
            "session_ended",
            "payload_too_large",
            "unsupported_media_type",
            "invalid_field",
            "rate_limited",
            "unavailable",
            "not_found",
            "internal",
        ] {
            for language in [Language::De, Language::En] {
                let (title, detail) = catalog.problem(language, code, &Map::new());
                assert!(title != code && detail != code, "{code}");
            }
        }
    }
}
