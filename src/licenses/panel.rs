//! The door for administrators in a browser: licenses.

use rocket::{Route, routes};

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![]
}
