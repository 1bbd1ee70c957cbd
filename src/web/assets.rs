//! Serves the styles and scripts in `assets/static`, under paths that change with their contents; without comments and
//! indentation, and compressed for browsers that say that they can read it. Pages are not compressed: the length of a compressed page could tell a stranger who makes
//! a browser load it what is in it, such as the token that forms carry.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use rocket::http::{ContentType, Header, Status};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};
use rocket::{Route, get, routes};
use rust_embed::RustEmbed;

use crate::digest;
use crate::security::secret;

#[derive(RustEmbed)]
#[folder = "assets/static"]
struct Static;

/// An embedded file. Browsers may cache it forever, because changed contents get a new path.
#[derive(Debug)]
pub struct Asset {
    name: &'static str,
    kind: ContentType,
    bytes: Cow<'static, [u8]>,
}

/// The script that is sent as the end of [`SCRIPT`], of which it uses the helpers.
const FORMS: &str = "forms.js";
const SCRIPT: &str = "panel.js";
/// How much of a digest is an entity tag, in hex digits.
const TAG_LENGTH: usize = 32;

/// What is made of a file once, when the first one is asked for.
struct Made {
    /// The bytes in the format gzip.
    compressed: Vec<u8>,
    /// The entity tag of the bytes as they are.
    tag: String,
    /// That of the compressed ones, which are another representation (RFC 9110, 8.8.3).
    compressed_tag: String,
}

impl Made {
    fn of(bytes: &[u8]) -> Option<Self> {
        let digest = secret::hex(&secret::sha256(bytes));
        let short = digest.get(..TAG_LENGTH)?;
        Some(Self {
            compressed: gzip(bytes)?,
            tag: format!("\"{short}\""),
            compressed_tag: format!("\"{short}-gzip\""),
        })
    }
}

/// The contents of a file, as they are sent.
fn contents(name: &str) -> Option<Cow<'static, [u8]>> {
    let bytes = Static::get(name)?.data;
    let bytes = match name {
        SCRIPT => [&*bytes, &*Static::get(FORMS)?.data].concat().into(),
        _ => bytes,
    };
    Some(match std::str::from_utf8(&bytes) {
        Ok(text) => without_comments(text).into_bytes().into(),
        Err(_) => bytes,
    })
}

/// A style sheet or a script without indentation, and without the lines that are comments. No text in them spans lines.
fn without_comments(text: &str) -> String {
    let is_comment = |line: &str| {
        line.is_empty() || line.starts_with("//") || line.starts_with("/*") && line.ends_with("*/")
    };
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !is_comment(line)).collect();
    lines.join("\n")
}

/// What is made of every file, by its name.
static MADE: LazyLock<BTreeMap<String, Made>> = LazyLock::new(|| {
    let made = Static::iter().filter_map(|name| {
        let made = Made::of(&contents(&name)?)?;
        Some((name.into_owned(), made))
    });
    made.collect()
});

/// The bytes in the format gzip; `None` if they cannot be compressed.
fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// Whether a header `Accept-Encoding` with this value accepts gzip.
fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        // `q=0` refuses it.
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        is_gzip && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

impl<'r> Responder<'r, 'static> for Asset {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let made = MADE.get(self.name).ok_or(Status::InternalServerError)?;
        let mut accepted = request.headers().get("Accept-Encoding");
        let is_compressed = accepted.any(accepts_gzip);
        let (bytes, tag) = if is_compressed {
            (made.compressed.as_slice().into(), &made.compressed_tag)
        } else {
            (self.bytes, &made.tag)
        };
        let mut response = Response::build();
        response
            .header(Header::new("ETag", tag.as_str()))
            // A cache must not give the one to those who asked for the other.
            .header(Header::new("Vary", "Accept-Encoding"))
            .header(Header::new(
                "Cache-Control",
                "public, max-age=31536000, immutable",
            ));
        let mut known = request.headers().get("If-None-Match");
        if known.any(|value| digest::is_tag_named(tag, value)) {
            return response.status(Status::NotModified).ok();
        }
        if is_compressed {
            response.header(Header::new("Content-Encoding", "gzip"));
        }
        response
            .header(self.kind)
            .sized_body(bytes.len(), std::io::Cursor::new(bytes))
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
    asset(SCRIPT, ContentType::JavaScript)
}

/// The icon for the browser's tab.
#[get("/mark.svg")]
fn mark() -> Option<Asset> {
    asset("mark.svg", ContentType::SVG)
}

fn asset(name: &'static str, kind: ContentType) -> Option<Asset> {
    let bytes = contents(name)?;
    Some(Asset { name, kind, bytes })
}

/// The routes of the static files; they need no login.
pub fn routes() -> Vec<Route> {
    routes![style, script, mark]
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_file_is_compressed_without_loss() {
        for name in Static::iter() {
            let mut bytes = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&*MADE[name.as_ref()].compressed);
            decoder.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, *contents(&name).unwrap(), "{name}");
        }
    }

    #[test]
    fn comments_stay_here_and_nothing_else() {
        let text = "/* A */\n.a { /* b */ }\n\n// c\n  if (d) {\n    // e\n    f(); // g\n  }\n";
        let sent = ".a { /* b */ }\nif (d) {\nf(); // g\n}";
        assert_eq!(without_comments(text), sent);
        for name in [SCRIPT, FORMS] {
            let bytes = Static::get(name).unwrap().data;
            for line in std::str::from_utf8(&bytes).unwrap().lines() {
                assert_eq!(line.matches('`').count() % 2, 0, "{name}: {line}");
            }
        }
    }

    #[test]
    fn gzip_is_used_where_the_browser_accepts_it() {
        for (header, accepted) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("deflate, gzip ; q=1, br", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip;q=0.0, br", false),
            ("xgzip", false),
        ] {
            assert_eq!(accepts_gzip(header), accepted, "{header}");
        }
    }
}
