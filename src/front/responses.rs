//! Responses of the front itself, and the headers of every response.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// Headers of every response. A response that sets one of them itself keeps its own value.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
];
/// Tells browsers to use HTTPS only, for a year (RFC 6797). Sent if the certificate is one that browsers trust.
pub(super) const HSTS: (&str, &str) = ("strict-transport-security", "max-age=31536000");

/// The response to a malformed request: 400 without a body.
pub(super) fn bad_request() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    with_connection_close(with_common_headers(response))
}

/// Whether a response is one of those that are the same for different requests, to reveal nothing: the bare 503, and
/// the 202 of the site routes.
pub(super) fn reveals_nothing(response: &Response<Full<Bytes>>) -> bool {
    let status = response.status();
    let is_uniform = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::ACCEPTED;
    is_uniform && response.body().size_hint().exact() == Some(0)
}

/// The response to a request that is not served: the bare 503.
pub(super) fn not_served() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    with_common_headers(response)
}

pub(super) fn with_common_headers(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if reveals_nothing(&response) {
        // hyper adds it for some methods only, as the last header; the bare 503 must be the same for all.
        let length = HeaderValue::from_static("0");
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
    }
    response
}

/// `response` as the last one of its connection. The rest of the request is not read.
pub(super) fn with_connection_close(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
