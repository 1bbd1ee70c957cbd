//! Passes the error of a guard to the catcher that responds to the request.

use rocket::Request;

use crate::error::Error;

/// The error of a guard, stored with the request, because Rocket does not pass it to the catcher.
#[derive(Default)]
struct Stash(std::sync::Mutex<Option<Error>>);

/// Stores the error of a guard for the catcher.
pub fn stash(request: &Request<'_>, error: Error) {
    let stash = request.local_cache(Stash::default);
    *stash
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
}

/// Takes the error that [`stash`] has stored, if any.
pub fn take_stashed(request: &Request<'_>) -> Option<Error> {
    let stash = request.local_cache(Stash::default);
    stash
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take()
}
