//! Responses of the panel: a page, a fragment of one, a redirect, a file, or an error.

use std::sync::OnceLock;

use rocket::Request;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{self, Responder, Response};
use serde_json::{Map, Value, json};

use super::cookies;
use super::flash;
use super::guards::ResponseLanguage;
use super::page::Pages;
use super::product_param;
use super::reply;
use crate::config::Language;
use crate::error::{Error, RefusalKind, Refused};
use crate::security::secret;

/// What a handler of the panel returns.
pub type HtmlReply = Result<Html, PanelError>;

/// Allows this server's own files only: no inline style or script, and no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The code of a request without a login.
pub const NOT_LOGGED_IN: &str = "not_logged_in";
/// The code of a request from an administrator who must set up a second factor first.
pub const SECOND_FACTOR_MISSING: &str = "second_factor_missing";
/// The code of a request to complete a login that is complete already.
pub const ALREADY_LOGGED_IN: &str = "already_logged_in";
/// The code of an irreversible action that requires the password or the second factor again.
pub const REAUTHENTICATION_REQUIRED: &str = "reauthentication_required";
/// The code of an action that the role of the administrator does not allow.
pub const FORBIDDEN: &str = "forbidden";

/// A response of the panel.
#[derive(Debug)]
pub enum Html {
    /// A page.
    Page {
        /// 200, or 422 for a form with errors.
        status: Status,
        /// The HTML document.
        text: String,
    },
    /// The HTML of a part of a page, for the panel's script. Sent with an `ETag`, so that it is transferred only if
    /// it has changed.
    Fragment(String),
    /// A redirect (303) to this path.
    Redirect(String),
    /// A redirect (303) to a page that reports what was done, once.
    Done {
        /// The path of the page.
        path: String,
        /// The name of the report, in the section `done` of the texts.
        done: &'static str,
    },
    /// A download.
    File {
        /// The file name that the browser suggests.
        name: String,
        /// The media type.
        kind: Box<ContentType>,
        /// The contents.
        bytes: Vec<u8>,
    },
}

impl Html {
    /// Redirects to `path`, a path below `/lizenzserver`.
    ///
    /// # Errors
    /// Never: it returns a `Result` so that it can be the last expression of a handler.
    pub fn redirect(path: impl Into<String>) -> HtmlReply {
        Ok(Self::Redirect(path.into()))
    }

    /// Redirects to `path`, a path below `/lizenzserver`, where the page reports once that `done` was done.
    ///
    /// # Errors
    /// Never, as [`Html::redirect`].
    pub fn done(path: impl Into<String>, done: &'static str) -> HtmlReply {
        let path = path.into();
        Ok(Self::Done { path, done })
    }
}

impl<'r> Responder<'r, 'static> for Html {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let mut response = Response::build();
        match self {
            Self::Page { status, text } => {
                let text = product_param::add_to_html(request, text);
                response
                    .status(status)
                    .header(ContentType::HTML)
                    .header(Header::new(
                        "Content-Security-Policy",
                        CONTENT_SECURITY_POLICY,
                    ))
                    // With the front's `no-referrer`, browsers would send `Origin: null` with the forms of this page
                    // (Fetch, 3.2).
                    .header(Header::new("Referrer-Policy", "same-origin"))
                    .sized_body(text.len(), std::io::Cursor::new(text))
            }
            Self::Fragment(text) => {
                return fragment(request, product_param::add_to_html(request, text));
            }
            Self::Redirect(path) => response.status(Status::SeeOther).header(Header::new(
                "Location",
                product_param::add_to_path(request, path),
            )),
            Self::Done { path, done } => return report(request, path, done),
            Self::File { name, kind, bytes } => response
                .header(*kind)
                .header(Header::new(
                    "Content-Disposition",
                    format!("attachment; filename=\"{name}\""),
                ))
                .sized_body(bytes.len(), std::io::Cursor::new(bytes)),
        };
        response.ok()
    }
}

/// Redirects to a page that reports what was done; a script that saves in place is told by a header.
fn report(request: &Request<'_>, path: String, done: &'static str) -> response::Result<'static> {
    if is_saved_by_script(request) {
        return Response::build().header(Header::new("X-Saved", "1")).ok();
    }
    flash::keep(request, &path, done);
    Html::Redirect(path).respond_to(request)
}

/// A part of a page; 304 without it if the panel's script has the same text already.
fn fragment(request: &Request<'_>, text: String) -> response::Result<'static> {
    let mut response = Response::build();
    let digest = secret::sha256(text.as_bytes());
    let tag = format!("\"{}\"", secret::hex(&digest));
    response.header(Header::new("ETag", tag.clone()));
    if request.headers().get_one("if-none-match") == Some(&tag) {
        return response.status(Status::NotModified).ok();
    }
    response
        .header(ContentType::HTML)
        .header(Header::new(
            "Content-Security-Policy",
            CONTENT_SECURITY_POLICY,
        ))
        .sized_body(text.len(), std::io::Cursor::new(text))
        .ok()
}

/// An [`Error`] that is shown as a page, or answered by a redirect.
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
        let (status, refused, invalid_field) = match self.0 {
            Error::Refused(refused) => {
                if let Some(redirect) = redirect_to_remedy(request, refused.code) {
                    return redirect;
                }
                (status_of_page(refused.kind), refused, None)
            }
            error => {
                let (refused, invalid_field) = to_public(error);
                (reply::status_of(refused.kind), refused, invalid_field)
            }
        };
        let retry = refused.members.get("retry_after").map(ToString::to_string);
        let ResponseLanguage(language) = ResponseLanguage::of(request);
        let (title, detail) = reply::title_and_detail(request, language, &refused, invalid_field);
        let text = error_page(request, language, &title, &detail)?;
        let mut response = Html::Page { status, text }.respond_to(request)?;
        if let Some(retry) = retry {
            response.set_raw_header("Retry-After", retry);
        }
        Ok(response)
    }
}

/// The values of the frame, for the page of an error.
#[derive(Default)]
struct Frame(OnceLock<Map<String, Value>>);

/// Gives the page of an error the frame with the navigation, with these values: for an administrator who is logged in.
pub fn set_frame(request: &Request<'_>, values: Map<String, Value>) {
    // A request belongs to one login, so there is only one value to set.
    request.local_cache(Frame::default).0.get_or_init(|| values);
}

/// The page of an error, in the frame if there is one.
fn error_page(
    request: &Request<'_>,
    language: Language,
    title: &str,
    detail: &str,
) -> Result<String, Status> {
    let frame = request.local_cache(Frame::default).0.get();
    let template = frame.map_or("error.html.tera", |_| "error_in_frame.html.tera");
    let mut values = frame.cloned().unwrap_or_default();
    values.extend(object_members(json!({
        "lang": language.tag(),
        "theme": theme(request),
        "title": title,
        "detail": detail,
        "fragment": is_fragment(request),
    })));
    let pages = request.rocket().state::<Pages>();
    let pages = pages.ok_or(Status::InternalServerError)?;
    pages
        .render_in(language, template, &values)
        .map_err(|error| {
            log::error!("{error}");
            Status::InternalServerError
        })
}

/// What the panel shows of an error that is not a refusal.
fn to_public(error: Error) -> (Refused, Option<reply::InvalidField>) {
    let is_damaged = matches!(error, Error::Damaged { .. });
    let (mut refused, invalid_field) = reply::to_public(error);
    if is_damaged {
        // A damaged database does not repair itself, so retrying is useless.
        refused.members.remove("retry_after");
    }
    (refused, invalid_field)
}

/// The status of a page that shows a refusal: 409 for all but two kinds, since most refusals that are shown as a page
/// conflict with the current state.
const fn status_of_page(kind: RefusalKind) -> Status {
    match kind {
        RefusalKind::Forbidden | RefusalKind::TooMany => reply::status_of(kind),
        _ => Status::Conflict,
    }
}

/// The response to a refusal that the administrator can resolve on another page, such as the login, the set-up of a second
/// factor, or re-authentication; `None` for the other codes.
fn redirect_to_remedy(request: &Request<'_>, code: &str) -> Option<response::Result<'static>> {
    let path = match code {
        NOT_LOGGED_IN => return Some(redirect_to_login(request)),
        SECOND_FACTOR_MISSING => "/lizenzserver/profile/totp".to_owned(),
        ALREADY_LOGGED_IN => "/lizenzserver".to_owned(),
        REAUTHENTICATION_REQUIRED => {
            // The action's own path shows its form; after re-authentication, the browser returns there.
            let next = product_param::add_to_path(request, request.uri().path().to_string());
            path_with_query("/lizenzserver/prove", &[("next", &next)])
        }
        _ => return None,
    };
    Some(Html::Redirect(path).respond_to(request))
}

/// Redirects to the login page, which leads back to the requested page if this is a `GET`. The panel's script gets a bare
/// 401 instead.
fn redirect_to_login(request: &Request<'_>) -> response::Result<'static> {
    if is_by_script(request) {
        return Response::build().status(Status::Unauthorized).ok();
    }
    let requested = request.uri().to_string();
    let next = form_urlencoded::byte_serialize(requested.as_bytes()).collect::<String>();
    let leads_back = request.method() == rocket::http::Method::Get && requested != "/lizenzserver";
    let path = if leads_back {
        format!("/lizenzserver/login?next={next}")
    } else {
        "/lizenzserver/login".to_owned()
    };
    Html::Redirect(path).respond_to(request)
}

/// Whether the panel's script requests a fragment of a page.
pub fn is_fragment(request: &Request<'_>) -> bool {
    request.headers().get_one("x-fragment") == Some("1")
}

/// Whether the panel's script sent the request, and not a browser that shows the response.
pub fn is_by_script(request: &Request<'_>) -> bool {
    is_fragment(request) || is_saved_by_script(request)
}

/// Whether the panel's script sends a form in place. It gets no redirect after it was saved, but a header that says so: where
/// a redirect leads to depends on what happens in other tabs.
fn is_saved_by_script(request: &Request<'_>) -> bool {
    request.headers().get_one("x-save") == Some("1")
}

/// `light` or `dark`, from the cookie; empty for the setting of the system.
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

/// `path` with a query string of those `pairs` whose value is not empty.
pub fn path_with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let non_empty = pairs.iter().filter(|(_, value)| !value.is_empty());
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in non_empty {
        query.append_pair(name, value);
    }
    let query = query.finish();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// The members of a JSON object; empty for any other value.
pub fn object_members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
