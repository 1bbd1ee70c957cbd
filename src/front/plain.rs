//! Plain HTTP beside HTTPS: serves the challenges of a certificate authority (ACME), and redirects browsers to HTTPS.
//! API clients are not redirected: a program that sends its key over plain HTTP must fail during development.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::forward::{is_panel, names_one_host};
use super::request_body::RequestBody;
use super::responses::{bad_request, not_served, with_common_headers, with_connection_close};
use crate::tls::Challenges;
use crate::web::connection::{BODY_TIMEOUT, discard_body};

/// The path at which a certificate authority looks for a challenge (RFC 8555 §8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// What is served without TLS.
#[derive(Clone)]
pub struct PlainHttp {
    /// The pending challenges.
    pub challenges: Arc<Challenges>,
    /// The public URL of the server, `https://…` without a slash at its end. Never taken from a request.
    pub base: String,
}

impl PlainHttp {
    pub(super) async fn answer(&self, request: Request<RequestBody>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if !names_one_host(&head) {
            return bad_request();
        }
        // The body is not needed, but a client that is still sending would see a reset instead of the response.
        let is_read = matches!(timeout(BODY_TIMEOUT, discard_body(body)).await, Ok(true));
        let target = head.uri.path_and_query();
        let target = target.map_or("", |target| target.as_str());
        let response = self.respond(&head.method, head.uri.path(), target);
        if is_read {
            response
        } else {
            with_connection_close(response)
        }
    }

    fn respond(&self, method: &Method, path: &str, target: &str) -> Response<Full<Bytes>> {
        let is_read_only = *method == Method::GET || *method == Method::HEAD;
        if !is_read_only {
            return not_served();
        }
        let token = path.strip_prefix(CHALLENGES);
        if let Some(page) = token.and_then(|token| self.challenges.page(token)) {
            let kind = HeaderValue::from_static("application/octet-stream");
            let mut response = Response::new(Full::from(page));
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return with_common_headers(response);
        }
        let location = HeaderValue::try_from(format!("{}{target}", self.base));
        match location {
            Ok(location) if is_panel(path) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                response.headers_mut().insert(header::LOCATION, location);
                with_common_headers(response)
            }
            _ => not_served(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_redirect_to_the_public_url_and_nothing_else_is_served() {
        let plain = PlainHttp {
            challenges: Arc::default(),
            base: "https://a.example:8443".to_owned(),
        };
        for (method, target, expected) in [
            ("GET", "/lizenzserver", Some("/lizenzserver")),
            (
                "HEAD",
                "/lizenzserver/login?next=%2Fx",
                Some("/lizenzserver/login?next=%2Fx"),
            ),
            (
                "GET",
                "/lizenzserver//b.example/",
                Some("/lizenzserver//b.example/"),
            ),
            ("POST", "/lizenzserver/login", None),
            ("GET", "/lizenzserverx", None),
            ("GET", "/", None),
            ("GET", "/api/license/version?version=1.0.0", None),
            ("GET", "/.well-known/acme-challenge/x", None),
        ] {
            let path = target.split('?').next().unwrap();
            let response = plain.respond(&method.parse().unwrap(), path, target);
            let location = response.headers().get("location");
            let location = location.map(|value| value.to_str().unwrap().to_owned());
            let expected = expected.map(|path| format!("https://a.example:8443{path}"));
            assert_eq!(location, expected, "{method} {target}");
            let status = if expected.is_some() { 308 } else { 503 };
            assert_eq!(response.status().as_u16(), status, "{method} {target}");
        }
    }
}
