//! Turns what a verb returned into a status and a body; the only place that knows both.

use std::net::IpAddr;
use std::sync::Arc;

use rocket::Request;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{self, Responder, Response};
use rocket::{Catcher, catch, catchers};
use serde::Serialize;
use serde_json::{Map, Value};

use super::guards::{Lang, Moment};
use crate::config::Language;
use crate::error::{Doing, Error, Refused};
use crate::i18n::Catalog;
use crate::security::rate_limit::{Group, Limiter, Rule, Source};

/// What a JSON door answers.
pub type Reply = Result<Answer, Problem>;

/// A JSON document on its way out.
#[derive(Debug)]
pub struct Answer {
    status: Status,
    body: String,
    guessed: bool,
}

impl Answer {
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
            guessed: false,
        }
    }

    /// 201 with a document that is written already.
    pub fn created_json(body: String) -> Self {
        Self {
            status: Status::Created,
            body,
            guessed: false,
        }
    }

    /// The same answer, counted against its caller as a failure that looks like guessing.
    #[must_use]
    pub fn guessed(mut self) -> Self {
        self.guessed = true;
        self
    }
}

impl<'r> Responder<'r, 'static> for Answer {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let trial = Trial::of(request);
        if self.guessed {
            trial.failed(request);
        } else {
            trial.served(request);
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
    ("rate_limited", Status::TooManyRequests),
    ("unavailable", Status::ServiceUnavailable),
];
/// Codes that somebody gets who guesses; they count against his address.
const GUESSES: &[&str] = &["invalid_api_key", "license_not_found", "session_not_found"];
/// When to come back while the file takes no write, in seconds.
const UNAVAILABLE_RETRY_S: u32 = 2;

/// A refusal for having called too often; to come back in `retry_after_s` seconds.
pub fn rate_limited(retry_after_s: u32) -> Refused {
    Refused::plain("rate_limited").with("retry_after", retry_after_s)
}

/// What the caller may know of `error`, and its status.
fn public(error: Error) -> (Status, Refused) {
    let refused = match error {
        Error::Refused(refused) => refused,
        Error::Invalid { field, problem } => {
            log::debug!("{field} {problem}");
            Refused::plain("invalid_field").with("field", field)
        }
        Error::Unavailable { reason } => {
            // The writer has said so once; a flood of requests must not fill what is left of the disk.
            log::debug!("unavailable: {reason}");
            Refused::plain("unavailable").with("retry_after", UNAVAILABLE_RETRY_S)
        }
        failure => {
            log::error!("{failure}");
            return (Status::InternalServerError, Refused::plain("internal"));
        }
    };
    let status = STATUS.iter().find(|(code, _)| *code == refused.code);
    (
        status.map_or(Status::InternalServerError, |(_, status)| *status),
        refused,
    )
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let (status, refused) = public(self.0);
        if GUESSES.contains(&refused.code) {
            Trial::of(request).failed(request);
        }
        let Lang(language) = Lang::of(request);
        let (title, detail) = texts(request, language, refused.code, &refused.members);
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

/// The title and the sentence of `code` in the caller's language.
pub fn texts(
    request: &Request<'_>,
    language: Language,
    code: &str,
    members: &Map<String, Value>,
) -> (String, String) {
    match request.rocket().state::<Catalog>() {
        Some(catalog) => catalog.problem(language, code, members),
        None => (code.to_owned(), code.to_owned()),
    }
}

/// Against whom a failure of this request counts. Set by the guard of the door, read by the reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trial(Option<(Source, Rule)>);

impl Trial {
    /// Failures of this request count against `address` by `rule`.
    pub fn begin(request: &Request<'_>, address: IpAddr, rule: Rule) {
        request.local_cache(|| Self(Some((address.into(), rule))));
    }

    fn of(request: &Request<'_>) -> Self {
        *request.local_cache(Self::default)
    }

    /// Counts a failure that looks like guessing.
    fn failed(self, request: &Request<'_>) {
        if let (Some((source, rule)), Some(limiter)) =
            (self.0, request.rocket().state::<Arc<Limiter>>())
        {
            let Moment(now) = Moment::of(request);
            limiter.failed(Group::ClientFailures, source, rule, now.tick);
        }
    }

    fn served(self, request: &Request<'_>) {
        if let (Some((source, _)), Some(limiter)) =
            (self.0, request.rocket().state::<Arc<Limiter>>())
        {
            let Moment(now) = Moment::of(request);
            limiter.served(source, now.tick);
        }
    }
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
pub struct Dark;

impl<'r> Responder<'r, 'static> for Dark {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build().status(Status::ServiceUnavailable).ok()
    }
}

#[catch(default)]
fn nothing(_: Status, request: &Request<'_>) -> Result<Dark, Problem> {
    let stash = request.local_cache(Stash::default);
    let cause = stash
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    cause.map_or(Ok(Dark), |error| Err(Problem(error)))
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
