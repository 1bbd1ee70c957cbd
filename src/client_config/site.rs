//! The door for anybody: which versions there are, without a key and without a handshake.

use std::convert::Infallible;
use std::io::Cursor;
use std::sync::Arc;

use rocket::http::{ContentType, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::{Responder, Response};
use rocket::{Route, State, get, response, routes};

use super::{ProgramSettings, ProgramSettingsCache};
use crate::db::Db;
use crate::web::reply::NotServed;

/// Five minutes: a site that looks at each of its own page views asks us once in a while.
const CACHE: &str = "public, max-age=300";

/// One of the two forms of the file.
struct File {
    settings: Arc<ProgramSettings>,
    known: bool,
    json: bool,
}

impl<'r> Responder<'r, 'static> for File {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let versions = &self.settings.versions;
        let mut response = Response::build();
        response
            .raw_header("ETag", versions.etag.clone())
            .raw_header("Cache-Control", CACHE);
        if self.known {
            return response.status(Status::NotModified).ok();
        }
        let (kind, body) = if self.json {
            (ContentType::JSON, versions.json.clone())
        } else {
            (ContentType::Plain, versions.text.clone())
        };
        response
            .header(kind)
            .sized_body(body.len(), Cursor::new(body))
            .ok()
    }
}

/// What the caller has already.
struct Known<'r>(&'r str);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Known<'r> {
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

async fn file(
    db: &Db,
    current: &Arc<ProgramSettingsCache>,
    known: &str,
    json: bool,
) -> Result<File, NotServed> {
    // A file that cannot be read now is told by every other door; here it is dark.
    let settings = current.get(db).await.map_err(|error| {
        log::debug!("the versions cannot be told: {error}");
        NotServed
    })?;
    let known = settings.versions.is_known(known);
    Ok(File {
        settings,
        known,
        json,
    })
}

/// The versions for sites.
#[get("/versions.json")]
async fn json(
    known: Known<'_>,
    db: &State<Db>,
    current: &State<Arc<ProgramSettingsCache>>,
) -> Result<File, NotServed> {
    file(db, current, known.0, true).await
}

/// The versions for shells.
#[get("/versions.txt")]
async fn text(
    known: Known<'_>,
    db: &State<Db>,
    current: &State<Arc<ProgramSettingsCache>>,
) -> Result<File, NotServed> {
    file(db, current, known.0, false).await
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![json, text]
}
