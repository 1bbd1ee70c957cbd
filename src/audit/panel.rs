//! The door for administrators in a browser: who did what.

use rocket::{Route, routes};

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![]
}
