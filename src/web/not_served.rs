//! Responses that reveal nothing: the bare 503, and the 202 of the site routes.

use rocket::Request;
use rocket::http::Status;
use rocket::response::{self, Responder, Response};

use crate::error::Error;

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

/// [`Accepted`] for `Ok(true)`. Internal errors are logged only.
///
/// # Errors
/// [`NotServed`] for everything else.
pub fn accepted(outcome: crate::error::Result<bool>) -> Result<Accepted, NotServed> {
    match outcome {
        Ok(true) => Ok(Accepted),
        Ok(false) => Err(NotServed),
        Err(error) => {
            if let Error::Internal { .. } = error {
                log::error!("{error}");
            }
            Err(NotServed)
        }
    }
}
