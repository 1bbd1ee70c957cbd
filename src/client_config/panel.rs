//! The door for administrators in a browser: the single administration page.

use rocket::{Route, routes};

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![]
}
