//! One request through Rocket, without a second socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use rocket::http::{Cookie, Header, Method};
use rocket::local::asynchronous::{Client, LocalRequest, LocalResponse};
use rocket::{Orbit, Rocket};
use tokio::time::{Instant, sleep_until};

use super::request_body::RequestBody;
use crate::clock::TrustedClock;
use crate::security::client_address::ClientAddress;
use crate::security::signing::{Exchange, NONCE, Nonce, Signer};
use crate::web::body::BODY_LEN_MAX;
use crate::web::connection::{BODIES_LEN_MAX, Bodies, Connection};
use crate::web::cookies;

/// Answers that tell nothing come this long after their request, or twice as long, and so on: how long we
/// looked before we said nothing is nobody's business.
const TIMING_QUANTUM: Duration = Duration::from_millis(5);
/// Whose answers are signed, where they are asked to be.
const SIGNED: &str = "/api/license/";
/// Where the panel is.
const PANEL: &str = "/lizenzserver";
/// What every answer carries; one that has a word of its own keeps it.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
];
/// Browsers come back over HTTPS only, for a year: where the certificate is one that they know (RFC 6797).
pub(super) const STRICT: (&str, &str) = ("strict-transport-security", "max-age=31536000");
/// Headers between two ends of a connection (RFC 9110 §7.6.1): not for what is behind.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Rocket, ready to answer.
#[derive(Clone)]
pub struct RocketBridge {
    rocket: &'static Client,
    bodies: Bodies,
}

/// An answer, and what it says of the connection.
pub(super) struct FrontResponse {
    pub(super) response: Response<Full<Bytes>>,
    /// How long the caller may be silent before the next request; none for a stranger.
    pub(super) silence: Option<Duration>,
    /// Whether it is one to a program that named a license or session that exists.
    pub(super) of_a_program: bool,
}

impl From<Response<Full<Bytes>>> for FrontResponse {
    fn from(response: Response<Full<Bytes>>) -> Self {
        Self {
            response,
            silence: None,
            of_a_program: false,
        }
    }
}

impl RocketBridge {
    /// Rocket lives as long as the process.
    pub fn new(client: Client) -> Self {
        Self {
            rocket: Box::leak(Box::new(client)),
            bodies: Bodies::new(BODIES_LEN_MAX),
        }
    }

    /// Rocket's answer to `request`, which came from `from`. What tells nothing comes at its beat.
    pub(super) async fn answer(
        &self,
        request: Request<RequestBody>,
        from: ClientAddress,
    ) -> FrontResponse {
        let begun = Instant::now();
        let answer = self.whole(request, from).await;
        if tells_nothing(&answer.response) {
            let beats = begun.elapsed().as_micros() / TIMING_QUANTUM.as_micros() + 1;
            let beats = u32::try_from(beats).unwrap_or(u32::MAX);
            sleep_until(begun + TIMING_QUANTUM.saturating_mul(beats)).await;
        }
        answer
    }

    async fn whole(&self, request: Request<RequestBody>, from: ClientAddress) -> FrontResponse {
        let (head, body) = request.into_parts();
        if !names_one_host(&head) {
            return unfit().into();
        }
        // Rocket knows no other methods, and a target of another form is for a proxy.
        let method = head.method.as_str().parse::<Method>();
        let (Ok(method), Some(target)) = (method, head.uri.path_and_query()) else {
            return dark().into();
        };
        // Rocket would take several spellings for the same path; here one is served, the others are not,
        // but for the one that people type.
        let path = target.path();
        let typed = path.strip_suffix('/') == Some(PANEL) && target.query().is_none();
        let (path, target) = if typed {
            (PANEL, PANEL)
        } else {
            (path, target.as_str())
        };
        let connection = Connection::new(body, self.bodies.clone());
        if !is_one_spelling(path) {
            let whole = connection.drain().await;
            return last_unless(whole, dark()).into();
        }
        let inner = self.rocket.req(method, target);
        inner.inner().local_cache(|| from);
        let inner = with_headers(inner, &head.headers);
        // The body stays on the connection until a guard asks for it, and Rocket itself never sees it: it
        // would take another method than the request's own from a form.
        connection.attach(inner.inner());
        let (mut out, told) = taken(inner.dispatch().await).await;
        if path.starts_with(SIGNED) && !tells_nothing(&out) {
            let headers = self.signed(&head, path, &connection, (&out, &told)).await;
            out.headers_mut().extend(headers);
        }
        let whole = connection.drain().await;
        if connection.is_broken() {
            log::debug!("{from}: a body broke off, or did not come in time");
            return closing(dark()).into();
        }
        FrontResponse {
            response: last_unless(whole, out),
            silence: connection.silence(),
            of_a_program: connection.has_named(),
        }
    }

    /// The header lines that prove an answer, where the program asks for them.
    async fn signed(
        &self,
        head: &Parts,
        path: &str,
        connection: &Connection,
        (out, told): (&Response<Full<Bytes>>, &Bytes),
    ) -> HeaderMap {
        if !head.headers.contains_key(NONCE) {
            return HeaderMap::new();
        }
        // Also where a guard refused before it read the body. One that is longer than any is not covered.
        let body = connection.known(BODY_LEN_MAX).await;
        let exchange = Exchange {
            method: head.method.as_str(),
            path,
            query: head.uri.query(),
            request: body.as_deref().filter(|body| !body.is_empty()),
            status: out.status().as_u16(),
            answer: told,
        };
        proof(self.rocket.rocket(), &exchange, &head.headers)
    }
}

/// A request of Rocket's with these header lines.
fn with_headers<'c>(mut inner: LocalRequest<'c>, headers: &HeaderMap) -> LocalRequest<'c> {
    for (name, value) in headers {
        if HOP_BY_HOP.contains(&name.as_str()) {
            continue;
        }
        // What is no UTF-8 goes on as something that is certainly refused: left out, another request would be
        // answered than was asked.
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if *name == header::COOKIE {
            // Rocket reads this header on its own listener only. Others' cookies are left out: a head has room for
            // thousands, and each takes many times its own length until the body is there.
            let cookies = Cookie::split_parse(value).flatten();
            for cookie in cookies.filter(|cookie| cookies::is_ours(cookie.name())) {
                inner = inner.cookie(cookie);
            }
            continue;
        }
        inner.add_header(Header::new(name.as_str().to_owned(), value));
    }
    inner
}

/// The answer, as the last one of its connection where the request was not read to its end.
fn last_unless(whole: bool, answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if whole { answer } else { closing(answer) }
}

/// Whether a path is written as it is served: no empty parts, no slash at its end, nothing encoded that needs
/// no encoding (RFC 3986, 2.3), which Rocket would decode.
fn is_one_spelling(path: &str) -> bool {
    let encoded = path.split('%').skip(1).filter_map(|rest| {
        let digits = rest.get(..2)?;
        u8::from_str_radix(digits, 16).ok()
    });
    let mut unreserved =
        encoded.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
    let slashes = path.contains("//") || (path.len() > 1 && path.ends_with('/'));
    !slashes && unreserved.next().is_none()
}

/// RFC 9112 §3.2: a request names its host, once; otherwise two readers may take it for two hosts.
pub(super) fn names_one_host(head: &Parts) -> bool {
    let named = head.headers.get_all(header::HOST).iter().count();
    named == 1 || (named == 0 && head.version < Version::HTTP_11)
}

/// The header lines that prove an answer, where the program asks for them. One that asks in another form than
/// it must is told so by the door.
fn proof(rocket: &Rocket<Orbit>, exchange: &Exchange<'_>, asked: &HeaderMap) -> HeaderMap {
    // What is no text is no nonce either.
    let lines = asked.get_all(NONCE).iter();
    let lines = lines.map(|line| line.to_str().unwrap_or_default());
    let mut headers = HeaderMap::new();
    // Whoever puts only an echo behind the front has no keys.
    let parts = (
        rocket.state::<Arc<Signer>>(),
        rocket.state::<TrustedClock>(),
    );
    if let (Ok(Some(nonce)), (Some(signer), Some(calendar))) = (Nonce::of(lines), parts) {
        // By the machine's date: the program judges it by its own.
        for (name, value) in exchange.signed(&signer.keys(), nonce, calendar.machine()) {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

/// What Rocket answered, with what every answer carries, and its body once more.
async fn taken(reply: LocalResponse<'_>) -> (Response<Full<Bytes>>, Bytes) {
    let mut out = Response::new(Full::default());
    *out.status_mut() =
        StatusCode::from_u16(reply.status().code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    for header in reply.headers().iter() {
        let name = HeaderName::from_bytes(header.name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(header.value())) {
            out.headers_mut().append(name, value);
        }
    }
    let body: Bytes = reply.into_bytes().await.unwrap_or_default().into();
    *out.body_mut() = Full::new(body.clone());
    (common(out), body)
}

/// The answer to what is no request of HTTP.
pub(super) fn unfit() -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    closing(common(answer))
}

/// Whether a page of the panel is, or would be, at this path.
pub(super) fn is_panel(path: &str) -> bool {
    path.strip_prefix(PANEL)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether an answer is one of those that look alike whatever was asked: the dark 503, and the 202 of a
/// site's door.
fn tells_nothing(answer: &Response<Full<Bytes>>) -> bool {
    let status = answer.status();
    let alike = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::ACCEPTED;
    alike && answer.body().size_hint().exact() == Some(0)
}

/// The answer to whatever is not served.
pub(super) fn dark() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    common(response)
}

pub(super) fn common(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if tells_nothing(&response) {
        // hyper says it for some methods only, as the last header; the dark must not tell them apart.
        let length = HeaderValue::from_static("0");
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
    }
    response
}

/// The same answer as the last one of its connection: what is left of the request is not read.
pub(super) fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
