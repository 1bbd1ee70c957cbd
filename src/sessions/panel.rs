//! The door for administrators in a browser: live sessions and the history.

use rocket::{Route, routes};

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![]
}
