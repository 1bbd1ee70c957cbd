//! What any route may ask of a request.

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

/// The moment this request arrived; every decision in it uses the same one.
#[derive(Clone, Copy, Debug)]
pub struct Moment(pub Now);

impl Moment {
    /// The moment `request` arrived.
    pub fn of(request: &Request<'_>) -> Self {
        let first = || match request.rocket().state::<TrustedClock>() {
            Some(calendar) => Self(calendar.now()),
            None => Self(Now {
                wall: UnixMs(0),
                tick: Tick::START,
                awake: Duration::ZERO,
            }),
        };
        *request.local_cache(first)
    }
}

impl ClientAddress {
    /// Where `request` comes from: the front has put it there, nothing else knows it.
    pub fn of(request: &Request<'_>) -> Self {
        *request.local_cache(|| Self::Stranger(Ipv4Addr::UNSPECIFIED.into()))
    }
}

/// The language that the caller reads best.
#[derive(Clone, Copy, Debug)]
pub struct Lang(pub Language);

impl Lang {
    /// The language of `request`.
    pub fn of(request: &Request<'_>) -> Self {
        if let Some(chosen) = request.local_cache(Chosen::default).0.get().copied() {
            return Self(chosen);
        }
        let cookie = request.cookies().get(cookies::LANGUAGE);
        if let Some(language) = cookie.and_then(|cookie| Language::of_tag(cookie.value())) {
            return Self(language);
        }
        // Several lines are one list (RFC 9110, 5.3).
        let lines: Vec<&str> = request.headers().get("accept-language").collect();
        let catalog = request.rocket().state::<Catalog>();
        Self(catalog.map_or(Language::De, |catalog| catalog.best(&lines.join(","))))
    }
}

/// The language that the person of a request has chosen in the profile.
#[derive(Default)]
struct Chosen(OnceLock<Language>);

/// From now on `request` speaks `language`.
pub fn speak(request: &Request<'_>, language: Language) {
    // The first word holds: a request has one person.
    let chosen = request.local_cache(Chosen::default);
    chosen.0.get_or_init(|| language);
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Moment {
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
impl<'r> FromRequest<'r> for Lang {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self::of(request))
    }
}

/// Whether the caller wants a signed answer; the front signs it.
///
/// # Errors
/// [`crate::error::Error::Invalid`] for one who asks in another form than he must.
pub fn signature_asked(request: &Request<'_>) -> Result<bool> {
    Ok(Nonce::of(request.headers().get(NONCE))?.is_some())
}

/// A caller without a body who asks for a signature as he must, or does not ask; with a body
/// [`super::body::Body`] looks after it.
#[derive(Clone, Copy, Debug)]
pub struct AskedWell;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for AskedWell {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match signature_asked(request) {
            Ok(_) => Outcome::Success(Self),
            Err(error) => {
                super::reply::stash(request, error);
                Outcome::Error((Status::UnprocessableEntity, ()))
            }
        }
    }
}
