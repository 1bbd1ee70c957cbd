//! Public handlers: the lists of versions, without an API key and without a handshake.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;

use rocket::http::{ContentType, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::{Responder, Response};
use rocket::{Route, get, response, routes};

use super::{ProductsInUse, ProgramSettings};
use crate::app::App;
use crate::error::Error;
use crate::id::ProductId;
use crate::web::not_served::NotServed;

/// Five minutes, so that a site that checks on every page view does not send a request each time.
const CACHE: &str = "public, max-age=300";

#[derive(Clone, Copy)]
enum Format {
    Json,
    Text,
}

/// The response: the list of versions as JSON or text, or 304.
struct VersionsResponse {
    settings: Arc<ProgramSettings>,
    not_modified: bool,
    format: Format,
}

impl<'r> Responder<'r, 'static> for VersionsResponse {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let versions = &self.settings.versions;
        let mut response = Response::build();
        response
            .raw_header("ETag", versions.etag.clone())
            .raw_header("Cache-Control", CACHE);
        if self.not_modified {
            return response.status(Status::NotModified).ok();
        }
        let (kind, body) = match self.format {
            Format::Json => (ContentType::JSON, versions.json.clone()),
            Format::Text => (ContentType::Plain, versions.text.clone()),
        };
        response
            .header(kind)
            .sized_body(body.len(), Cursor::new(body))
            .ok()
    }
}

/// The `If-None-Match` header; empty if there is none.
struct IfNoneMatch<'r>(&'r str);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for IfNoneMatch<'r> {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self(
            request
                .headers()
                .get_one("if-none-match")
                .unwrap_or_default(),
        ))
    }
}

/// The response with the versions of the product that `choose` finds among those in use.
async fn respond(
    app: &App,
    choose: impl FnOnce(&ProductsInUse) -> Option<ProductId>,
    if_none_match: IfNoneMatch<'_>,
    format: Format,
) -> Result<VersionsResponse, NotServed> {
    // Other handlers report a database error; this one, for unauthenticated callers, responds with a bare 503.
    let cannot_be_read = |error: Error| {
        log::debug!("the list of versions cannot be read: {error}");
        NotServed
    };
    let cache = &app.program_settings;
    let shared = cache.shared(&app.db).await.map_err(cannot_be_read)?;
    let product = choose(&shared.products).ok_or(NotServed)?;
    let settings = cache.get(&app.db, product).await.map_err(cannot_be_read)?;
    let not_modified = settings.versions.matches(if_none_match.0);
    Ok(VersionsResponse {
        settings,
        not_modified,
        format,
    })
}

/// The list of versions of the first product, for sites.
#[get("/versions.json")]
async fn json(if_none_match: IfNoneMatch<'_>, app: &App) -> Result<VersionsResponse, NotServed> {
    respond(app, ProductsInUse::first, if_none_match, Format::Json).await
}

/// The list of versions of the first product, for shell scripts.
#[get("/versions.txt")]
async fn text(if_none_match: IfNoneMatch<'_>, app: &App) -> Result<VersionsResponse, NotServed> {
    respond(app, ProductsInUse::first, if_none_match, Format::Text).await
}

/// The list of versions of the product that the name of the file begins with: `<slug>.json` or `<slug>.txt`.
#[get("/versions/<file>")]
async fn of_product(
    file: &str,
    if_none_match: IfNoneMatch<'_>,
    app: &App,
) -> Result<VersionsResponse, NotServed> {
    // No slug contains a dot.
    let (slug, format) = match file.split_once('.') {
        Some((slug, "json")) => (slug, Format::Json),
        Some((slug, "txt")) => (slug, Format::Text),
        _ => return Err(NotServed),
    };
    respond(app, |all| all.with_slug(slug), if_none_match, format).await
}

/// The public routes.
pub fn routes() -> Vec<Route> {
    routes![json, text, of_product]
}
