//! One request through Rocket, without a second socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use rocket::http::{Cookie, Header, Method};
use rocket::local::asynchronous::{Client, LocalResponse};
use rocket::{Orbit, Rocket};
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock::Calendar;
use crate::security::client_address::ClientAddress;
use crate::security::signing::{Exchange, NONCE, Nonce, Signer};

/// For a whole body.
pub(super) const BODY: Duration = Duration::from_secs(10);
/// Answers that tell nothing come this long after their request, or twice as long, and so on: how long we
/// looked before we said nothing is nobody's business.
const BEAT: Duration = Duration::from_millis(5);
/// How much of a body is read: one byte more than the door takes, so that the door can tell.
const BODY_LEN: usize = crate::web::body::BODY_LEN_MAX + 1;
/// The same for the forms of the panel.
const FORM_LEN: usize = crate::web::form::FORM_LEN_MAX + 1;
/// Whose answers are signed, where they are asked to be.
const SIGNED: &str = "/api/license/";
/// Where the panel is.
const PANEL: &str = "/lizenzserver";
/// How much of a body that is too long is read and forgotten.
const DRAINED_LEN: u64 = 8 * 1024 * 1024;
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
#[derive(Clone, Copy)]
pub struct Inside(&'static Client);

impl Inside {
    /// Rocket lives as long as the process.
    pub fn new(client: Client) -> Self {
        Self(Box::leak(Box::new(client)))
    }

    /// Rocket's answer to `request`, which came from `from`. What tells nothing comes at its beat.
    pub(super) async fn answer(
        self,
        request: Request<Incoming>,
        from: ClientAddress,
    ) -> Response<Full<Bytes>> {
        let begun = Instant::now();
        let answer = self.whole(request, from).await;
        if tells_nothing(&answer) {
            let beats = begun.elapsed().as_micros() / BEAT.as_micros() + 1;
            let beats = u32::try_from(beats).unwrap_or(u32::MAX);
            sleep_until(begun + BEAT.saturating_mul(beats)).await;
        }
        answer
    }

    async fn whole(self, request: Request<Incoming>, from: ClientAddress) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if !names_one_host(&head) {
            return unfit();
        }
        // Rocket knows no other methods, and a target of another form is for a proxy.
        let method = head.method.as_str().parse::<Method>();
        let (Ok(method), Some(target)) = (method, head.uri.path_and_query()) else {
            return dark();
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
        let longest = if is_panel(path) { FORM_LEN } else { BODY_LEN };
        let Ok(body) = timeout(BODY, limited(body, longest)).await else {
            log::debug!("{from}: no body within {BODY:?}");
            return closing(dark());
        };
        let Some((body, whole)) = body else {
            return closing(dark());
        };
        // A form may name another method than its own to Rocket: no page of ours does.
        let rerouted = body.starts_with(b"_method=");
        if !is_one_spelling(path) || rerouted {
            let answer = dark();
            return if whole { answer } else { closing(answer) };
        }
        let mut inner = self.0.req(method, target).body(&body);
        inner.inner().local_cache(|| from);
        for (name, value) in &head.headers {
            if HOP_BY_HOP.contains(&name.as_str()) {
                continue;
            }
            // What is no UTF-8 goes on as something that is certainly refused: left out, another
            // request would be answered than was asked.
            let mut value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            if !is_panel(path) && *name == header::CONTENT_TYPE && value.contains("form") {
                // Rocket lets a form name another method than its own; nothing outside the panel is a form.
                "application/octet-stream".clone_into(&mut value);
            }
            if *name == header::COOKIE {
                // Rocket reads this header on its own listener only.
                for cookie in Cookie::split_parse(value).flatten() {
                    inner = inner.cookie(cookie);
                }
                continue;
            }
            inner.add_header(Header::new(name.as_str().to_owned(), value));
        }
        let reply = inner.dispatch().await;
        let (mut out, told) = taken(reply).await;
        if path.starts_with(SIGNED) && !tells_nothing(&out) {
            // A body that is longer than any door takes was not read to its end.
            let read = whole && body.len() < BODY_LEN;
            let exchange = Exchange {
                method: head.method.as_str(),
                path,
                request: (read && !body.is_empty()).then_some(&body),
                status: out.status().as_u16(),
                answer: &told,
            };
            let headers = proof(self.0.rocket(), &exchange, &head.headers);
            out.headers_mut().extend(headers);
        }
        if whole { out } else { closing(out) }
    }
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
    let parts = (rocket.state::<Arc<Signer>>(), rocket.state::<Calendar>());
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

/// The body, as far as any door would read it, and whether its end was reached; none when it breaks off.
///
/// What is too long is read on and forgotten up to a bound: a client that is still sending when the
/// connection closes would be told of a reset instead of the answer.
pub(super) async fn limited(mut body: Incoming, longest: usize) -> Option<(Vec<u8>, bool)> {
    if body.size_hint().lower() > DRAINED_LEN {
        // Announced as far too long: the door hears of as much as it would have read.
        return Some((vec![b' '; longest], false));
    }
    let mut read = Vec::new();
    let mut left = DRAINED_LEN;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return None };
        if let Ok(data) = frame.into_data() {
            read.extend(data.iter().take(longest - read.len()));
            left = left.saturating_sub(data.len() as u64);
            if left == 0 {
                return Some((read, false));
            }
        }
    }
    Some((read, true))
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
