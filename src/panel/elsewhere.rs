//! Paths without a page: the root of the server, and whatever below `/lizenzserver` no other route answers.

use rocket::http::{Method, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Orbit, Rocket, Route, get, routes};
use serde_json::json;

use super::{HOME, LoggedIn, Visitor};
use crate::app::App;
use crate::error::{Error, Resource};
use crate::security::client_address::ClientAddress;
use crate::web::html::{HtmlReply, PanelError};
use crate::web::not_served::NotServed;

/// Guard for requests from the server's own machine. Others are forwarded, and end as an unknown path.
struct ThisMachine;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for ThisMachine {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        if ClientAddress::of(request).is_this_machine() {
            Outcome::Success(Self)
        } else {
            Outcome::Forward(Status::NotFound)
        }
    }
}

/// Says where the panel is, to somebody who tries the server out on its own machine.
#[get("/")]
fn root(_guard: ThisMachine, visitor: Visitor<'_>, app: &App) -> HtmlReply {
    let url = format!("{}{HOME}", app.endpoint.url);
    visitor.page(Status::Ok, "panel/where.html.tera", json!({ "url": url }))
}

/// The rank of the route for unknown paths: the last one that is tried.
const UNKNOWN: isize = 100;

/// A mistyped path of an administrator who is logged in. For anybody else nothing is there.
#[get("/<_..>", rank = 100)]
fn unknown(request: Option<LoggedIn<'_>>) -> Result<NotServed, PanelError> {
    match request {
        Some(request) => Err(Error::not_found(Resource::Page, &request.path).into()),
        None => Ok(NotServed),
    }
}

/// The path of the page at `path`, or of the nearest one above it.
pub(super) fn nearest_page<'p>(rocket: &Rocket<Orbit>, path: &'p str) -> &'p str {
    let ends = path.match_indices('/').map(|(end, _)| end);
    let parents = ends.filter_map(|end| path.get(..end)).chain([path]);
    let pages = parents.filter(|parent| is_page(rocket, parent));
    pages.last().unwrap_or(path)
}

/// Whether a browser can load `path`.
fn is_page(rocket: &Rocket<Orbit>, path: &str) -> bool {
    let mut pages = rocket
        .routes()
        .filter(|route| route.method == Method::Get && route.rank < UNKNOWN);
    pages.any(|route| {
        let (pattern, path) = (route.uri.path().split('/'), path.split('/'));
        pattern.clone().count() == path.clone().count()
            && pattern
                .zip(path)
                .all(|(pattern, part)| pattern == part || pattern.starts_with('<'))
    })
}

/// The route of the server's root.
pub fn root_routes() -> Vec<Route> {
    routes![root]
}

/// The route of all paths of the panel that no other route answers.
pub fn unknown_routes() -> Vec<Route> {
    routes![unknown]
}
