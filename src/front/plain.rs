//! Plain HTTP beside HTTPS: proofs for an authority, and the way to HTTPS for people. Programs are not led
//! on: one that sent its key over plain HTTP is to fail where its author sees it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::forward::{closing, common, dark, is_panel, names_one_host, unfit};
use super::request_body::RequestBody;
use crate::tls::Challenges;
use crate::web::connection::{BODY, drained};

/// Where an authority looks (RFC 8555 §8.3).
const PROOFS: &str = "/.well-known/acme-challenge/";

/// What is served without TLS.
#[derive(Clone)]
pub struct Plain {
    /// Proofs that are asked for just now.
    pub challenges: Arc<Challenges>,
    /// The server's own address, `https://…` without a slash at its end. Never what a request says.
    pub base: String,
}

impl Plain {
    pub(super) async fn answer(&self, request: Request<RequestBody>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if !names_one_host(&head) {
            return unfit();
        }
        // Nobody reads it here; a client that is still sending would hear of a reset instead of the answer.
        let whole = matches!(timeout(BODY, drained(body)).await, Ok(true));
        let target = head.uri.path_and_query();
        let target = target.map_or("", |target| target.as_str());
        let answer = self.to(&head.method, head.uri.path(), target);
        if whole { answer } else { closing(answer) }
    }

    fn to(&self, method: &Method, path: &str, target: &str) -> Response<Full<Bytes>> {
        let looks = *method == Method::GET || *method == Method::HEAD;
        if !looks {
            return dark();
        }
        let proof = path.strip_prefix(PROOFS);
        if let Some(page) = proof.and_then(|token| self.challenges.page(token)) {
            let kind = HeaderValue::from_static("application/octet-stream");
            let mut answer = Response::new(Full::from(page));
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            return common(answer);
        }
        let there = HeaderValue::try_from(format!("{}{target}", self.base));
        match there {
            Ok(there) if is_panel(path) => {
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
                answer.headers_mut().insert(header::LOCATION, there);
                common(answer)
            }
            _ => dark(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lead_to_our_own_address_and_everything_else_is_dark() {
        let plain = Plain {
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
            let answer = plain.to(&method.parse().unwrap(), path, target);
            let location = answer.headers().get("location");
            let location = location.map(|value| value.to_str().unwrap().to_owned());
            let expected = expected.map(|path| format!("https://a.example:8443{path}"));
            assert_eq!(location, expected, "{method} {target}");
            let status = if expected.is_some() { 308 } else { 503 };
            assert_eq!(answer.status().as_u16(), status, "{method} {target}");
        }
    }
}
