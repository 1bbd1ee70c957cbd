//! Styles and scripts from `assets/static`, under addresses that change with their contents.

use rocket::http::{ContentType, Header};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};
use rocket::{Route, get, routes};
use rust_embed::RustEmbed;

use crate::security::secret;

#[derive(RustEmbed)]
#[folder = "assets/static"]
struct Static;

/// A file of ours, to be kept by browsers for good: another one has another address.
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

/// What the addresses of our files end on: some digits of their common digest.
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

/// The look.
#[get("/panel.css")]
fn style() -> Option<Asset> {
    asset("panel.css", ContentType::CSS)
}

/// What makes it quicker.
#[get("/panel.js")]
fn script() -> Option<Asset> {
    asset("panel.js", ContentType::JavaScript)
}

/// The mark for the browser's tab.
#[get("/mark.svg")]
fn mark() -> Option<Asset> {
    asset("mark.svg", ContentType::SVG)
}

fn asset(name: &str, kind: ContentType) -> Option<Asset> {
    let bytes = Static::get(name)?.data;
    Some(Asset { kind, bytes })
}

/// What is served to everybody.
pub fn routes() -> Vec<Route> {
    routes![style, script, mark]
}
