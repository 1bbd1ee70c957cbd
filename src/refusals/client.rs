//! Counts every refused call of a program or website, and hands it to the queue, whatever handler or guard refused it. Also
//! logs at once where the shop's own program is wrong.

use std::time::Duration;

use rocket::fairing::{Fairing, Info, Kind};
use rocket::{Request, Response};

use super::rules::{INVALID_API_KEY, masked_api_key, masked_license_key};
use super::{Named, RefusedCall};
use crate::app::App;
use crate::devices::client::DEVICE_TEXT_MAX;
use crate::domain::{DOMAIN_LEN_MAX, Domain};
use crate::id::SessionToken;
use crate::licenses::{self, LicenseKey};
use crate::logging::RateLimitedLine;
use crate::products::client::{presented_key, product_of};
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::RATE_LIMITED;
use crate::security::signing::NONCE;
use crate::sessions::client::TOKEN_TEXT_MAX;
use crate::text;
use crate::version::{VERSION_LEN_MAX, Version};
use crate::web::body::{self, BODY_LEN_MAX, JsonFields};
use crate::web::connection::{RequestContext, UNCOUNTED_LEN};
use crate::web::guards::RequestTime;
use crate::web::refusal::{self, NotedRefusal};

/// The paths of programs begin with this.
const PROGRAMS: &str = "/api/license/";
/// The calls of websites are named by their paths below this.
const API: &str = "/api/";
/// A log line about each kind of wrong call appears at most this often.
const LOG_EVERY: Duration = Duration::from_mins(1);
/// Refusals that every copy of a program gets, since the program itself is wrong.
const WRONG_PROGRAM: [(&str, &str); 5] = [
    (
        INVALID_API_KEY,
        "the API key in X-API-Key is missing or wrong",
    ),
    ("invalid_field", "a field is missing or wrong"),
    ("malformed_json", "the body is no JSON object"),
    (
        "unsupported_media_type",
        "the Content-Type is not application/json",
    ),
    ("payload_too_large", "the body is larger than 16 KiB"),
];

/// The fairing that records refusals: it sees every response.
pub struct Recorder {
    lines: [RateLimitedLine; WRONG_PROGRAM.len()],
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            lines: WRONG_PROGRAM.map(|_| RateLimitedLine::each(LOG_EVERY)),
        }
    }
}

#[rocket::async_trait]
impl Fairing for Recorder {
    fn info(&self) -> Info {
        Info {
            name: "record refusals",
            kind: Kind::Response,
        }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, _: &mut Response<'r>) {
        let path = request.uri().path();
        let (Some(refusal), Ok(app)) = (refusal::noted(request), App::of(request)) else {
            return;
        };
        let (product, at) = (product_of(request), RequestTime::of(request).0.wall);
        app.refusals.count_of(product, refusal.code, at);
        let program = path.as_str().strip_prefix(PROGRAMS);
        let Some(call) = program.or(path.as_str().strip_prefix(API)) else {
            return;
        };
        let address = ClientAddress::of(request);
        if program.is_some() {
            self.log_wrong_program(refusal, call, address);
        }
        // A stranger beyond the limits is only counted.
        if product.is_none() && refusal.code == RATE_LIMITED {
            return;
        }
        app.refusal_queue.push(RefusedCall {
            at,
            code: refusal.code,
            call: call.to_owned(),
            product,
            named: named_by(request, refusal).await,
            address,
            detail: refusal.detail.clone(),
        });
    }
}

impl Recorder {
    /// Logs a call that no copy of the program can ever make with success.
    fn log_wrong_program(&self, refusal: &NotedRefusal, call: &str, address: ClientAddress) {
        let mut kinds = WRONG_PROGRAM.iter().zip(&self.lines);
        let kind = kinds.find(|((code, _), _)| *code == refusal.code);
        if let Some(((code, problem), line)) = kind
            && let Some(more) = line.due()
        {
            let detail = match refusal.detail.as_str() {
                "" => String::new(),
                detail => format!(" ({detail})"),
            };
            log::info!(
                "{address}: a program's call {call} is wrong: {problem}{detail}: {code}{more}"
            );
        }
    }
}

/// What the request names. Its body is read again, or now if it was refused before: the connection waits for all of it in
/// either case. A body that is longer than those of programs is left alone, unless the signature of the response needs it.
async fn named_by(request: &Request<'_>, refusal: &NotedRefusal) -> Named {
    let is_signed = request.headers().contains(NONCE);
    let max = if is_signed {
        BODY_LEN_MAX
    } else {
        UNCOUNTED_LEN
    };
    let bytes = RequestContext::body(request, max).await;
    let fields = bytes.and_then(|bytes| body::parse(&bytes));
    let mut named = fields.map(read_fields).unwrap_or_default();
    if refusal.code == INVALID_API_KEY {
        named.masked_key = masked_api_key(presented_key(request));
    }
    named
}

/// What a body names; fields that are missing or invalid stay empty.
fn read_fields(mut fields: JsonFields) -> Named {
    let key = licenses::client::key_if_given(&mut fields);
    let key = key.ok().flatten().unwrap_or_default();
    let name = fields.text_with("machine_id", DEVICE_TEXT_MAX, text::to_nfc);
    let mut text = |name, max| fields.text(name, max).ok();
    let hardware_id = text("hardware_hash", DEVICE_TEXT_MAX);
    let version = text("version", VERSION_LEN_MAX);
    let version = version.and_then(|version| version.parse::<Version>().ok());
    let session = text("session_token", TOKEN_TEXT_MAX);
    let domain = text("domain", DOMAIN_LEN_MAX);
    let domain = domain.and_then(|domain| Domain::parse(&domain));
    Named {
        license_key: LicenseKey::parse(&key),
        masked_key: masked_license_key(&key),
        session: session.and_then(|token| SessionToken::parse(&token)),
        hardware_id: hardware_id.unwrap_or_default(),
        machine_id: name.unwrap_or_default(),
        version: version.map_or_else(String::new, |version| version.to_string()),
        domain: domain.map_or_else(String::new, |domain| domain.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_body_names_is_read_as_far_as_it_is_valid() {
        let long = "x".repeat(DEVICE_TEXT_MAX + 1);
        let json = format!(
            r#"{{"license_key":"abcde-fghjk","machine_id":"{long}","hardware_hash":"h","version":"1.2.3.4",
                 "session_token":7,"domain":"Shop.Example"}}"#
        );
        let named = read_fields(body::parse(json.as_bytes()).unwrap());
        assert!(named.license_key.is_none() && named.session.is_none());
        assert_eq!(named.masked_key, "AB… (10)");
        assert_eq!(
            (&*named.machine_id, &*named.hardware_id, &*named.version),
            ("", "h", "")
        );
        assert_eq!(named.domain, "shop.example");
    }
}
