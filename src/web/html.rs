//! What a door for people answers: a page, a part of one, a file, another address, or why not.

use rocket::Request;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{self, Responder, Response};
use rocket::{Catcher, catch, catchers};
use serde_json::{Map, json};

use super::cookies;
use super::guards::{Lang, Moment};
use super::page::Pages;
use super::reply;
use crate::error::{Error, Refused};
use crate::security::rate_limit::RATE_LIMITED;
use crate::security::secret;

/// What a door for people answers.
pub type HtmlReply = Result<Html, PanelError>;

/// Nothing but our own files, and nobody may frame us. No inline style, no inline script.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The code of a request without a login.
pub const NOT_LOGGED_IN: &str = "not_logged_in";
/// The code of a request of somebody who has to set up a second factor before anything else.
pub const FACTOR_MISSING: &str = "factor_missing";
/// The code of a second factor that was given already.
pub const ALREADY_IN: &str = "already_in";
/// The code of a final deed for which the password or the second factor is to be given again.
pub const PROVE_FIRST: &str = "prove_first";
/// The code of a deed that the role does not allow.
pub const FORBIDDEN: &str = "forbidden";
/// An answer for people.
#[derive(Debug)]
pub enum Html {
    /// A page.
    Page {
        /// Its status: 200, or 422 for a form with faults.
        status: Status,
        /// The document.
        text: String,
    },
    /// A part of a page for a script, which may know it already.
    Part(String),
    /// Look there.
    Go(String),
    /// A file to keep.
    File {
        /// What it is to be called.
        name: String,
        /// What is in it.
        kind: Box<ContentType>,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl Html {
    /// Look there: an address below `/lizenzserver`.
    ///
    /// # Errors
    /// None: a door can end with it.
    pub fn go(address: impl Into<String>) -> HtmlReply {
        Ok(Self::Go(address.into()))
    }
}

impl<'r> Responder<'r, 'static> for Html {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let mut answer = Response::build();
        match self {
            Self::Page { status, text } => answer
                .status(status)
                .header(ContentType::HTML)
                .header(Header::new("Content-Security-Policy", POLICY))
                // Without any, a browser says `Origin: null` for a form of ours (Fetch, 3.2).
                .header(Header::new("Referrer-Policy", "same-origin"))
                .sized_body(text.len(), std::io::Cursor::new(text)),
            Self::Part(text) => {
                let digest = secret::sha256(text.as_bytes());
                let tag = format!("\"{}\"", secret::hex(&digest));
                answer.header(Header::new("ETag", tag.clone()));
                if request.headers().get_one("if-none-match") == Some(&tag) {
                    return answer.status(Status::NotModified).ok();
                }
                answer
                    .header(ContentType::HTML)
                    .header(Header::new("Content-Security-Policy", POLICY))
                    .sized_body(text.len(), std::io::Cursor::new(text))
            }
            Self::Go(address) => answer
                .status(Status::SeeOther)
                .header(Header::new("Location", address)),
            Self::File { name, kind, bytes } => answer
                .header(*kind)
                .header(Header::new(
                    "Content-Disposition",
                    format!("attachment; filename=\"{name}\""),
                ))
                .sized_body(bytes.len(), std::io::Cursor::new(bytes)),
        };
        answer.ok()
    }
}

/// An [`Error`] on its way to a person.
#[derive(Debug)]
pub struct PanelError(Error);

impl From<Error> for PanelError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl<R: Into<Refused>> From<R> for PanelError {
    fn from(refusal: R) -> Self {
        Self(Error::Refused(refusal.into()))
    }
}

impl<'r> Responder<'r, 'static> for PanelError {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let mut wrong = None;
        let (status, refused) = match self.0 {
            Error::Refused(refused) if refused.code == NOT_LOGGED_IN => return login(request),
            Error::Refused(refused) if refused.code == FACTOR_MISSING => {
                return Html::Go("/lizenzserver/profile/totp".to_owned()).respond_to(request);
            }
            Error::Refused(refused) if refused.code == ALREADY_IN => {
                return Html::Go("/lizenzserver".to_owned()).respond_to(request);
            }
            Error::Refused(refused) if refused.code == PROVE_FIRST => {
                // The question stands on the address that the deed is sent to.
                let next = request.uri().path().to_string();
                return Html::Go(address("/lizenzserver/prove", &[("next", &next)]))
                    .respond_to(request);
            }
            Error::Refused(refused) => (Status::Conflict, refused),
            Error::NotFound { .. } => (Status::NotFound, Refused::plain("not_found")),
            Error::Invalid {
                field,
                problem,
                fault,
            } => {
                let (refused, known) = reply::invalid_field(field, &problem, fault);
                wrong = Some(known);
                (Status::UnprocessableEntity, refused)
            }
            Error::Unavailable { reason } => {
                log::debug!("unavailable: {reason}");
                let refused = Refused::plain("unavailable");
                let retry = reply::UNAVAILABLE_RETRY_S;
                (
                    Status::ServiceUnavailable,
                    refused.with("retry_after", retry),
                )
            }
            // `db` has said what to do.
            Error::Damaged { .. } => (Status::ServiceUnavailable, Refused::plain("unavailable")),
            failure => {
                log::error!("{failure}");
                (Status::InternalServerError, Refused::plain("internal"))
            }
        };
        let status = match refused.code {
            FORBIDDEN | FOREIGN => Status::Forbidden,
            RATE_LIMITED => Status::TooManyRequests,
            _ => status,
        };
        let retry = refused.members.get("retry_after").map(ToString::to_string);
        let Lang(language) = Lang::of(request);
        let (title, detail) = reply::texts(request, language, &refused, wrong);
        let page = json!({
            "lang": language.tag(),
            "theme": theme(request),
            "title": title,
            "detail": detail,
            "fragment": is_fragment(request),
        });
        let pages = request.rocket().state::<Pages>();
        let pages = pages.ok_or(Status::InternalServerError)?;
        let text = pages.render_in(language, "error.html.tera", &page);
        let text = text.map_err(|error| {
            log::error!("{error}");
            Status::InternalServerError
        })?;
        let mut answer = Html::Page { status, text }.respond_to(request)?;
        if let Some(retry) = retry {
            answer.set_raw_header("Retry-After", retry);
        }
        Ok(answer)
    }
}

const FOREIGN: &str = super::form::CSRF_FAILED;

/// To the login, and from there to where one wanted to go; a script is told in a word.
fn login(request: &Request<'_>) -> response::Result<'static> {
    if is_fragment(request) {
        return Response::build().status(Status::Unauthorized).ok();
    }
    let wanted = request.uri().to_string();
    let next = form_urlencoded::byte_serialize(wanted.as_bytes()).collect::<String>();
    let asked = request.method() == rocket::http::Method::Get && wanted != "/lizenzserver";
    let address = if asked {
        format!("/lizenzserver/login?next={next}")
    } else {
        "/lizenzserver/login".to_owned()
    };
    Html::Go(address).respond_to(request)
}

/// Whether a script of ours asks for a part of a page.
pub fn is_fragment(request: &Request<'_>) -> bool {
    request.headers().get_one("x-fragment") == Some("1")
}

/// `light`, `dark`, or nothing for what the system says.
pub fn theme(request: &Request<'_>) -> &'static str {
    match request
        .cookies()
        .get(cookies::THEME)
        .map(rocket::http::Cookie::value)
    {
        Some("light") => "light",
        Some("dark") => "dark",
        _ => "",
    }
}

/// Answers what a guard of the panel refused, in words; whatever else is not served stays dark.
#[catch(default)]
fn refused(_: Status, request: &Request<'_>) -> Result<reply::NotServed, PanelError> {
    // So that the language cookie and the moment are those of the request.
    let Moment(_) = Moment::of(request);
    reply::stashed(request).map_or(Ok(reply::NotServed), |error| Err(PanelError(error)))
}

/// What answers below `/lizenzserver` where no route does.
pub fn catchers() -> Vec<Catcher> {
    catchers![refused]
}

/// `path` with a query of those `pairs` that hold something.
pub fn address(path: &str, pairs: &[(&str, &str)]) -> String {
    let given = pairs.iter().filter(|(_, value)| !value.is_empty());
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in given {
        query.append_pair(name, value);
    }
    let query = query.finish();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// The members of a JSON object; none of anything else.
pub fn members(value: serde_json::Value) -> Map<String, serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map,
        _ => Map::new(),
    }
}
