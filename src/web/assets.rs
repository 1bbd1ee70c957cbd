//! Serves the styles and scripts in `assets/static`, under paths that change with their contents.

use rocket::http::{ContentType, Header};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};
use rocket::{Route, get, routes};
use rust_embed::RustEmbed;

use crate::security::secret;

#[derive(RustEmbed)]
#[folder = "assets/static"]
struct Static;

/// An embedded file. Browsers may cache it forever, because changed contents get a new path.
#[derive(Debug)]
pub struct Asset {
    kind: ContentType,
    bytes: std::borrow::Cow<'static, [u8]>,
}

impl<'r> Responder<'r, 'static> for Asset {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build()
            .header(self.kind)
            .header(Header::new(
                "Cache-Control",
                "public, max-age=31536000, immutable",
            ))
            .sized_body(self.bytes.len(), std::io::Cursor::new(self.bytes))
            .ok()
    }
}

/// The part of the paths of all files that changes with their contents: 12 hex digits of a digest over all of them.
pub fn fingerprint() -> String {
    let mut all = Vec::new();
    for name in Static::iter() {
        if let Some(file) = Static::get(&name) {
            all.extend_from_slice(&secret::sha256(&file.data));
        }
    }
    secret::hex(&secret::sha256(&all))
        .chars()
        .take(12)
        .collect()
}

/// The style sheet of the panel.
#[get("/panel.css")]
fn style() -> Option<Asset> {
    asset("panel.css", ContentType::CSS)
}

/// The script of the panel.
#[get("/panel.js")]
fn script() -> Option<Asset> {
    asset("panel.js", ContentType::JavaScript)
}

/// The icon for the browser's tab.
#[get("/mark.svg")]
fn mark() -> Option<Asset> {
    asset("mark.svg", ContentType::SVG)
}

fn asset(name: &str, kind: ContentType) -> Option<Asset> {
    let bytes = Static::get(name)?.data;
    Some(Asset { kind, bytes })
}

/// The routes of the static files; they need no login.
pub fn routes() -> Vec<Route> {
    routes![style, script, mark]
}
