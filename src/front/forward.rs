//! Passes a request to Rocket inside this process, and turns Rocket's answer into a response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use rocket::http::{Cookie, Header, Method};
use rocket::local::asynchronous::{Client, LocalRequest, LocalResponse};
use tokio::time::{Instant, sleep_until};

use super::request_body::RequestBody;
use super::responses::{
    bad_request, not_served, reveals_nothing, with_common_headers, with_connection_close,
};
use crate::clock::TrustedClock;
use crate::logging::RateLimitedLine;
use crate::security::client_address::ClientAddress;
use crate::security::signing::{Exchange, NONCE, Nonce, Signer};
use crate::web::body::BODY_LEN_MAX;
use crate::web::connection::{BODIES_LEN_MAX, BodyBudget, RequestContext};
use crate::web::cookies;

/// Responses without information are delayed to a multiple of this, so that the response time does not reveal whether
/// a lookup took place.
const TIMING_QUANTUM: Duration = Duration::from_millis(5);
/// The calls of programs are below this path. Responses to them are signed if the caller asks for it.
const PROGRAMS: &str = "/api/license/";
/// A call of a program with a wrong path is logged at most this often.
const LOG_EVERY: Duration = Duration::from_mins(1);
/// Characters of a wrong path that are logged.
const LOGGED_PATH_MAX: usize = 60;
/// The path of the panel.
const PANEL: &str = "/lizenzserver";
/// A path of the panel that has no page, for those that are not canonical.
const NO_PAGE: &str = "/lizenzserver/-";
/// The headers that handlers and guards read. Rocket gets no other: it copies and hashes each one, and most of those that
/// clients send are for proxies and caches. So it gets none that concerns one connection only (RFC 9110 §7.6.1).
const READ: &[&str] = &[
    "accept-encoding",
    "accept-language",
    "content-digest",
    "content-type",
    "cookie",
    "host",
    "idempotency-key",
    "if-none-match",
    "origin",
    "sec-fetch-site",
    "signature-nonce",
    "user-agent",
    "x-api-key",
    "x-fragment",
    "x-save",
];

/// Rocket with all its routes, called without a socket.
#[derive(Clone)]
pub struct RocketBridge {
    rocket: &'static Client,
    bodies: BodyBudget,
    /// `None` in tests and benchmarks, which put a minimal Rocket behind the front.
    signing: Option<Signing>,
    wrong_path_log: Arc<RateLimitedLine>,
}

/// What signs responses.
#[derive(Clone)]
struct Signing {
    signer: Arc<Signer>,
    clock: TrustedClock,
}

/// A response, and what the request revealed about its caller.
pub(super) struct FrontResponse {
    pub(super) response: Response<Full<Bytes>>,
    /// How long the caller may wait before its next request; `None` if it is unidentified.
    pub(super) max_idle: Option<Duration>,
    /// Whether the caller named an existing license or session.
    pub(super) is_program: bool,
}

impl From<Response<Full<Bytes>>> for FrontResponse {
    fn from(response: Response<Full<Bytes>>) -> Self {
        Self {
            response,
            max_idle: None,
            is_program: false,
        }
    }
}

impl RocketBridge {
    /// Leaks `client`, because Rocket is needed as long as the process runs.
    pub fn new(client: Client) -> Self {
        Self {
            rocket: Box::leak(Box::new(client)),
            bodies: BodyBudget::new(BODIES_LEN_MAX),
            signing: None,
            wrong_path_log: Arc::new(RateLimitedLine::each(LOG_EVERY)),
        }
    }

    /// The budget for bodies and heads.
    pub(super) fn budget(&self) -> BodyBudget {
        self.bodies.clone()
    }

    /// Signs responses to programs that ask for it.
    #[must_use]
    pub fn with_signer(mut self, signer: Arc<Signer>, clock: TrustedClock) -> Self {
        self.signing = Some(Signing { signer, clock });
        self
    }

    /// The response to `request`, which came from `from`. A response without information is delayed by
    /// [`TIMING_QUANTUM`].
    pub(super) async fn answer(
        &self,
        request: Request<RequestBody>,
        from: ClientAddress,
    ) -> FrontResponse {
        let started = Instant::now();
        let response = self.dispatch(request, from).await;
        if reveals_nothing(&response.response) {
            let quanta = started.elapsed().as_micros() / TIMING_QUANTUM.as_micros() + 1;
            let quanta = u32::try_from(quanta).unwrap_or(u32::MAX);
            sleep_until(started + TIMING_QUANTUM.saturating_mul(quanta)).await;
        }
        response
    }

    async fn dispatch(&self, request: Request<RequestBody>, from: ClientAddress) -> FrontResponse {
        let (head, body) = request.into_parts();
        if !names_one_host(&head) {
            return bad_request().into();
        }
        // Other methods are unknown to Rocket.
        let method = head.method.as_str().parse::<Method>();
        let (Ok(method), Some(Target { path, full })) = (method, Target::of(&head)) else {
            return not_served().into();
        };
        // Rocket's copy of the head lasts until the response, and the body may take its time.
        let Ok(_reserved) = self.bodies.reserve_up_to(head_len(&head)) else {
            log::debug!("{from}: no memory left for long request heads");
            return with_connection_close(not_served()).into();
        };
        let context = RequestContext::new(body, self.bodies.clone());
        if !is_canonical(path) {
            self.log_wrong_path(&head, from);
            return drained(&context, not_served()).await.into();
        }
        let is_program = path.starts_with(PROGRAMS);
        let rockets = self.rockets_request((method, full), &head.headers, (from, &context));
        // Rocket has its own copy; this one and the buffer that holds it are kept for a signature only.
        let head = is_program.then_some(head);
        let (mut response, body) = into_response(rockets.dispatch().await).await;
        if let Some(head) = &head {
            if reveals_nothing(&response) && !context.body_is_incomplete() {
                self.log_wrong_path(head, from);
            }
            let answer = (&response, &body);
            let headers = self.signature_headers(head, &context, answer).await;
            response.headers_mut().extend(headers);
        }
        after_body(&context, response, from).await
    }

    /// The request for Rocket. A function of its own, since what it moves would take space in the future of
    /// [`RocketBridge::dispatch`].
    fn rockets_request(
        &self,
        (method, target): (Method, &str),
        headers: &HeaderMap,
        (from, context): (ClientAddress, &RequestContext),
    ) -> LocalRequest<'static> {
        let request = self.rocket.req(method, target.to_owned());
        request.inner().local_cache(|| from);
        let request = with_headers(request, headers);
        // The body stays on the connection until a guard asks for it. Rocket never sees it, because it would let a
        // form override the method of the request.
        context.attach(request.inner());
        request
    }

    /// Logs a request below the path of programs that is no call, since a program is written wrong then. The caller gets
    /// no explanation.
    fn log_wrong_path(&self, head: &Parts, from: ClientAddress) {
        let path = head.uri.path();
        if path.starts_with(PROGRAMS)
            && let Some(more) = self.wrong_path_log.due()
        {
            let (method, path) = (&head.method, loggable(path));
            log::info!("{from}: a program's call is wrong: there is no {method} {path}{more}");
        }
    }

    /// The headers that sign `response`; empty if it reveals nothing, or the caller does not ask for a signature.
    async fn signature_headers(
        &self,
        head: &Parts,
        context: &RequestContext,
        (response, body): (&Response<Full<Bytes>>, &Bytes),
    ) -> HeaderMap {
        if reveals_nothing(response) || !head.headers.contains_key(NONCE) {
            return HeaderMap::new();
        }
        // Reads the body if a guard refused the request before reading it. The signature does not cover a body that
        // is longer than any handler accepts.
        let request_body = context.whole_body(BODY_LEN_MAX).await;
        let exchange = Exchange {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query(),
            request_body: request_body.as_deref().filter(|body| !body.is_empty()),
            status: response.status().as_u16(),
            response_body: body,
        };
        sign(self.signing.as_ref(), &exchange, &head.headers)
    }
}

/// What a request asks for.
struct Target<'h> {
    path: &'h str,
    /// The path with the query.
    full: &'h str,
}

impl<'h> Target<'h> {
    /// The target of a request; `None` for one to a proxy, which has another form.
    fn of(head: &'h Parts) -> Option<Self> {
        let target = head.uri.path_and_query()?;
        // Rocket would accept several spellings of a path; only the canonical one is served. The exception is the
        // panel's path with a slash at its end, which people type.
        let path = target.path();
        let is_panel_with_slash = path.strip_suffix('/') == Some(PANEL) && target.query().is_none();
        let is_below_panel = path
            .strip_prefix(PANEL)
            .is_some_and(|rest| rest.starts_with('/'));
        let (path, full) = if is_panel_with_slash {
            (PANEL, PANEL)
        } else if is_below_panel && !is_canonical(path) {
            (NO_PAGE, NO_PAGE)
        } else {
            (path, target.as_str())
        };
        Some(Self { path, full })
    }
}

/// `response`, once the rest of the request's body has been read; another one if the body is incomplete.
async fn after_body(
    context: &RequestContext,
    response: Response<Full<Bytes>>,
    from: ClientAddress,
) -> FrontResponse {
    let response = drained(context, response).await;
    if context.body_is_incomplete() {
        log::debug!("{from}: a request body is incomplete, or did not arrive in time");
        return with_connection_close(not_served()).into();
    }
    FrontResponse {
        response,
        max_idle: context.max_idle(),
        is_program: context.caller_is_identified(),
    }
}

/// Bytes of a head, without the separators.
fn head_len(head: &Parts) -> u64 {
    let target = head.uri.path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    let lines = head.headers.iter();
    let lines = lines.map(|(name, value)| name.as_str().len() + value.len());
    (target + lines.sum::<usize>()) as u64
}

/// Adds those of `headers` that are [`READ`] to a request for Rocket.
fn with_headers<'c>(mut inner: LocalRequest<'c>, headers: &HeaderMap) -> LocalRequest<'c> {
    for (name, value) in headers {
        let Some(name) = READ.iter().find(|read| *name == **read) else {
            continue;
        };
        // Non-UTF-8 bytes are replaced, so that the handler refuses the value. Without the header, the response
        // would be to a different request.
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if *name == header::COOKIE {
            // Rocket parses this header on its own listener only. Unknown cookies are dropped: a head can contain
            // thousands, and each occupies many times its own length until the body has arrived.
            let cookies = Cookie::split_parse(value).flatten();
            for cookie in cookies.filter(|cookie| cookies::is_ours(cookie.name())) {
                inner = inner.cookie(cookie);
            }
            continue;
        }
        inner.add_header(Header::new(*name, value));
    }
    inner
}

/// `response`, once the rest of the request has been read; it closes the connection if that is not possible.
async fn drained(
    context: &RequestContext,
    response: Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    if context.drain().await {
        response
    } else {
        with_connection_close(response)
    }
}

/// A path as it may be logged: without segments that may be keys or tokens, which are longer than the names of calls or
/// contain digits and capitals.
fn loggable(path: &str) -> String {
    let is_word = |segment: &&str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || b"-_".contains(&byte);
        segment.len() <= 20 && segment.bytes().all(plain)
    };
    let segments = path.split('/');
    let segments = segments.map(|segment| Some(segment).filter(is_word).unwrap_or("…"));
    let path = segments.collect::<Vec<_>>().join("/");
    path.chars().take(LOGGED_PATH_MAX).collect()
}

/// Whether a path is in the one spelling that is served: no empty segments, no slash at its end, and no unreserved
/// character percent-encoded (RFC 3986, 2.3), which Rocket would decode.
fn is_canonical(path: &str) -> bool {
    let encoded = path.split('%').skip(1).filter_map(|rest| {
        let digits = rest.get(..2)?;
        u8::from_str_radix(digits, 16).ok()
    });
    let mut unreserved =
        encoded.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
    let slashes = path.contains("//") || (path.len() > 1 && path.ends_with('/'));
    !slashes && unreserved.next().is_none()
}

/// Whether a request has exactly one `Host` header (RFC 9112 §3.2), so that a proxy and this server agree on the host.
pub(super) fn names_one_host(head: &Parts) -> bool {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    hosts == 1 || (hosts == 0 && head.version < Version::HTTP_11)
}

/// The headers that sign `exchange`; empty if the nonce among the `request_headers` is malformed, which the handler
/// has refused already.
fn sign(
    signing: Option<&Signing>,
    exchange: &Exchange<'_>,
    request_headers: &HeaderMap,
) -> HeaderMap {
    // A value that is not text becomes an empty one, which is not a valid nonce.
    let lines = request_headers.get_all(NONCE).iter();
    let lines = lines.map(|line| line.to_str().unwrap_or_default());
    let mut headers = HeaderMap::new();
    if let (Ok(Some(nonce)), Some(Signing { signer, clock })) = (Nonce::parse(lines), signing) {
        // With the time of the machine, because the program compares it with the time of its own machine.
        for (name, value) in
            exchange.signature_headers(&signer.key_pair(), nonce, clock.system_date())
        {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

/// Rocket's answer as a response with the common headers, and a copy of its body.
async fn into_response(reply: LocalResponse<'_>) -> (Response<Full<Bytes>>, Bytes) {
    let mut response = Response::new(Full::default());
    *response.status_mut() =
        StatusCode::from_u16(reply.status().code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    for header in reply.headers().iter() {
        let name = HeaderName::from_bytes(header.name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(header.value())) {
            response.headers_mut().append(name, value);
        }
    }
    let body: Bytes = reply.into_bytes().await.unwrap_or_default().into();
    *response.body_mut() = Full::new(body.clone());
    (with_common_headers(response), body)
}

/// Whether `path` belongs to the panel, with or without a page at it.
pub(super) fn is_panel(path: &str) -> bool {
    path.strip_prefix(PANEL)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_path_is_logged_without_keys() {
        for (path, logged) in [
            ("/api/license/session/begin", "/api/license/session/begin"),
            ("/api/license/verify/", "/api/license/verify/"),
            (
                "/api/license/T6FXC-WD5PK-9KM86-55VVN-QC4MM/verify",
                "/api/license/…/verify",
            ),
            ("/api/license/abcdefghijkmnpqrstvwxyzab", "/api/license/…"),
        ] {
            assert_eq!(loggable(path), logged);
        }
    }
}
