//! Responses that reveal nothing: the bare 503, and the 202 of the site routes.

use rocket::Request;
use rocket::http::Status;
use rocket::response::{self, Responder, Response};

use super::refusal;
use crate::error::{Error, Refused};

/// The bare 503 for everything that is not served, so that a wrong path cannot be told from a wrong method.
#[derive(Debug)]
pub struct NotServed;

impl<'r> Responder<'r, 'static> for NotServed {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build().status(Status::ServiceUnavailable).ok()
    }
}

/// A 202 that reveals as little as [`NotServed`].
#[derive(Debug)]
pub struct Accepted;

impl<'r> Responder<'r, 'static> for Accepted {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build().status(Status::Accepted).ok()
    }
}

/// The refusal of a website's message. It responds as [`NotServed`], and is noted for administrators unless nothing is known
/// of it.
#[derive(Debug)]
pub struct RefusedSite(Option<Refused>);

impl RefusedSite {
    /// The refusal of a message of which nothing is known.
    pub const UNKNOWN: Self = Self(None);
}

impl<'r> Responder<'r, 'static> for RefusedSite {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        if let Some(refused) = &self.0 {
            refusal::note(request, refused);
        }
        NotServed.respond_to(request)
    }
}

/// [`Accepted`] for `Ok(true)`. Internal errors are logged only.
///
/// # Errors
/// [`RefusedSite`] for everything else.
pub fn accepted(outcome: crate::error::Result<bool>) -> Result<Accepted, RefusedSite> {
    match outcome {
        Ok(true) => Ok(Accepted),
        Ok(false) => Err(RefusedSite::UNKNOWN),
        Err(Error::Refused(refused)) => Err(RefusedSite(Some(refused))),
        Err(error) => {
            if let Error::Internal { .. } = error {
                log::error!("{error}");
            }
            Err(RefusedSite::UNKNOWN)
        }
    }
}
