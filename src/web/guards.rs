//! Request guards that any handler may use: the time and the address of the request, and the language and the signature
//! of the response.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::Duration;

use rocket::Request;
use rocket::http::Status;
use rocket::request::{FromRequest, Outcome};

use super::cookies;
use crate::clock::{Now, Tick, TrustedClock, UnixMs};
use crate::config::Language;
use crate::error::Result;
use crate::i18n::Catalog;
use crate::security::client_address::ClientAddress;
use crate::security::signing::{NONCE, Nonce};

/// When the request arrived. All decisions about a request use this one reading of the clock.
#[derive(Clone, Copy, Debug)]
pub struct RequestTime(pub Now);

impl RequestTime {
    /// When `request` arrived.
    pub fn of(request: &Request<'_>) -> Self {
        let read_clock = || match request.rocket().state::<TrustedClock>() {
            Some(clock) => Self(clock.now()),
            // Only in the minimal Rocket of tests and benchmarks.
            None => Self(Now {
                wall: UnixMs(0),
                tick: Tick::START,
                awake: Duration::ZERO,
            }),
        };
        *request.local_cache(read_clock)
    }
}

impl ClientAddress {
    /// The address from which `request` comes. The front has attached it to the request; without the front, it is unknown.
    pub fn of(request: &Request<'_>) -> Self {
        *request.local_cache(|| Self::Unidentified(Ipv4Addr::UNSPECIFIED.into()))
    }
}

/// The language of the response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseLanguage(pub Language);

impl ResponseLanguage {
    /// The language for `request`: from the profile of the administrator, the cookie, or `Accept-Language`, in this
    /// order.
    pub fn of(request: &Request<'_>) -> Self {
        if let Some(preferred) = request
            .local_cache(ProfileLanguage::default)
            .0
            .get()
            .copied()
        {
            return Self(preferred);
        }
        let cookie = request.cookies().get(cookies::LANGUAGE);
        if let Some(language) = cookie.and_then(|cookie| Language::from_tag(cookie.value())) {
            return Self(language);
        }
        // Several header lines form one list (RFC 9110, 5.3).
        let lines: Vec<&str> = request.headers().get("accept-language").collect();
        let catalog = request.rocket().state::<Catalog>();
        Self(catalog.map_or(Language::De, |catalog| catalog.negotiate(&lines.join(","))))
    }
}

/// The language that the logged-in administrator has chosen in the profile.
#[derive(Default)]
struct ProfileLanguage(OnceLock<Language>);

/// Sets the language of the response to `request`, ahead of its cookie and headers.
pub fn set_language(request: &Request<'_>, language: Language) {
    // A request belongs to one administrator, so there is only one value to set.
    let preferred = request.local_cache(ProfileLanguage::default);
    preferred.0.get_or_init(|| language);
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for RequestTime {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self::of(request))
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for ClientAddress {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self::of(request))
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for ResponseLanguage {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self::of(request))
    }
}

/// Whether the caller asks for a signed response, by a nonce header. The front signs it.
///
/// # Errors
/// [`crate::error::Error::Invalid`] if the nonce is malformed.
pub fn wants_signature(request: &Request<'_>) -> Result<bool> {
    Ok(Nonce::parse(request.headers().get(NONCE))?.is_some())
}

/// Refuses a request with a malformed nonce. For requests without a body; [`super::body::Body`] checks the nonce
/// itself.
#[derive(Clone, Copy, Debug)]
pub struct ValidNonce;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for ValidNonce {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match wants_signature(request) {
            Ok(_) => Outcome::Success(Self),
            Err(error) => {
                super::stash::stash(request, error);
                Outcome::Error((Status::UnprocessableEntity, ()))
            }
        }
    }
}
