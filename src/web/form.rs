//! Forms of the panel: read with a bound, and only where the browser and the page both prove that the form
//! is ours. A foreign page can send a form, but neither the header nor the token.

use std::time::Duration;

use rocket::data::{Data, FromData, Outcome};
use rocket::http::Status;
use rocket::request::Request;
use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::reply;
use crate::error::{Error, Fault, Refused, Result};
use crate::logging::RateLimitedLine;
use crate::security::secret;
use crate::text;

/// Longest form of somebody who is logged in, in bytes: notes of 10,000 characters, each written as several
/// bytes, with room to spare.
const FORM_LEN_MAX: usize = 256 * 1024;
/// Longest form of anybody else, in bytes.
const OPEN_FORM_LEN_MAX: usize = 16 * 1024;
/// Fields of one form.
const FIELDS_MAX: usize = 200;
/// Between two lines about refused forms, and how much of a header they show.
const TELL_EACH: Duration = Duration::from_mins(1);
const SHOWN_LEN: usize = 100;
/// The field with the token of the session.
const CSRF_FIELD: &str = "proof";

/// The code of a form that does not prove where it comes from.
pub const CSRF_FAILED: &str = "foreign_form";

/// What the form of a logged-in person must carry. Set by the guard of the door.
#[derive(Debug, Default)]
pub struct ExpectedToken(Option<String>);

/// From now on forms in `request` must carry `token`.
pub fn expect_csrf_token(request: &Request<'_>, token: &str) {
    request.local_cache(|| ExpectedToken(Some(token.to_owned())));
}

/// A form sent by a page of ours to the session that it was made for.
#[derive(Debug)]
pub struct Form(Fields);

/// A form sent by a page of ours to nobody in particular: login and set-up.
#[derive(Debug)]
pub struct OpenForm {
    fields: Fields,
    proved: bool,
}

impl OpenForm {
    /// Whether it carries the proof of the login that sends it, too.
    pub fn has_valid_csrf_token(&self) -> bool {
        self.proved
    }
}

/// A form to a door that must not be noticed: nothing, where it would be refused.
#[derive(Debug)]
pub struct QuietForm(pub Option<Fields>);

/// Fields as typed, without the proof.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// What was typed into the first field of this name, without what copying leaves at its ends; empty where
    /// there is none.
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim_matches(text::is_leftover)
    }

    /// The same to the letter: a password may begin with a space.
    pub fn raw(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The text, where something was typed.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Whether a field of this name was sent: a checked box, a pressed button.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The whole number in `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is none, or does not fit.
    pub fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T> {
        let parsed = self.text(name).parse::<T>().ok();
        parsed.ok_or_else(|| Error::invalid(name, "must be a whole number"))
    }

    /// Every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::ops::Deref for Form {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl std::ops::Deref for OpenForm {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.fields
    }
}

#[rocket::async_trait]
impl<'r> FromData<'r> for Form {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, _: Data<'r>) -> Outcome<'r, Self> {
        let read = async {
            let fields = read(request).await?;
            if !has_valid_csrf_token(request, &fields) {
                return Err(Refused::plain(CSRF_FAILED).into());
            }
            Ok(Self(fields.without_csrf_token()))
        };
        outcome(request, read.await)
    }
}

#[rocket::async_trait]
impl<'r> FromData<'r> for OpenForm {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, _: Data<'r>) -> Outcome<'r, Self> {
        let read = read(request).await.map(|fields| Self {
            proved: has_valid_csrf_token(request, &fields),
            fields: fields.without_csrf_token(),
        });
        outcome(request, read)
    }
}

#[rocket::async_trait]
impl<'r> FromData<'r> for QuietForm {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, _: Data<'r>) -> Outcome<'r, Self> {
        Outcome::Success(Self(read(request).await.ok()))
    }
}

/// Whether a form carries what the guard of the door expects.
fn has_valid_csrf_token(request: &Request<'_>, fields: &Fields) -> bool {
    let expected = request.local_cache(ExpectedToken::default).0.as_deref();
    let given = fields.raw(CSRF_FIELD);
    expected.is_some_and(|token| secret::same(token.as_bytes(), given.as_bytes()))
}

fn outcome<'r, T>(request: &Request<'_>, read: Result<T>) -> Outcome<'r, T, ()> {
    match read {
        Ok(form) => Outcome::Success(form),
        Err(error) => {
            if !Connection::broke_off(request) {
                reply::stash(request, error);
            }
            Outcome::Error((Status::Forbidden, ()))
        }
    }
}

async fn read(request: &Request<'_>) -> Result<Fields> {
    if !comes_from_here(request) {
        return Err(Refused::plain(CSRF_FAILED).into());
    }
    let given = request.headers().get_one("content-type");
    let essence = given.unwrap_or_default().split(';').next().map(str::trim);
    if essence != Some("application/x-www-form-urlencoded") {
        return Err(Refused::plain("unsupported_media_type").into());
    }
    // The guard of a login has run before this, or there is none.
    let is_logged_in = request.local_cache(ExpectedToken::default).0.is_some();
    let max = if is_logged_in {
        FORM_LEN_MAX
    } else {
        OPEN_FORM_LEN_MAX
    };
    let text = Connection::body(request, max).await?;
    Fields::parse(&text)
}

/// What a browser says of where a form comes from; empty where it says nothing.
#[derive(Clone, Copy, Debug)]
struct Sender<'a> {
    fetch_site: Option<&'a str>,
    origin: &'a str,
    host: &'a str,
}

/// Which pages are ours, and what was said about those that are not.
#[derive(Debug)]
pub struct OwnPages {
    /// The origin that browsers show, as they write it: `https://licenses.example.org`.
    public: Option<String>,
    refused: RateLimitedLine,
}

impl OwnPages {
    /// Those of `public_url`, and those at whatever `Host` a request names.
    pub fn new(public_url: Option<&str>) -> Self {
        Self {
            public: public_url.and_then(origin_of),
            refused: RateLimitedLine::each(TELL_EACH),
        }
    }

    /// Whether the browser says that a form was sent by a page of this server. Every browser of today says
    /// so in `Sec-Fetch-Site`, older ones in `Origin`; who says neither is no browser with a form. A proxy
    /// may put its own name into `Host`, so that of `public_url` counts whatever it says.
    fn are_those_of(&self, sender: Sender<'_>) -> bool {
        if let Some(site) = sender.fetch_site {
            return site == "same-origin";
        }
        let origin = sender.origin.to_ascii_lowercase();
        if self.public.as_ref() == Some(&origin) {
            return true;
        }
        let named = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        !sender.host.is_empty() && named == Some(&sender.host.to_ascii_lowercase())
    }

    /// One line in a while that lets the operator see which setting is missing.
    fn tell(&self, sender: Sender<'_>) {
        let Some(more) = self.refused.due() else {
            return;
        };
        let short = |text: &str| text.chars().take(SHOWN_LEN).collect::<String>();
        let site = sender
            .fetch_site
            .map(|site| format!(", Sec-Fetch-Site {site:?}"));
        log::warn!(
            "a form was refused because of where it came from: Origin {:?}, Host {:?}{}; if that is the \
             panel's own address, set it as [server] public_url{more}",
            short(sender.origin),
            short(sender.host),
            short(&site.unwrap_or_default()),
        );
    }
}

/// Whether a form comes from a page of ours; tells the operator of one that does not.
fn comes_from_here(request: &Request<'_>) -> bool {
    let headers = request.headers();
    let sender = Sender {
        fetch_site: headers.get_one("sec-fetch-site"),
        origin: headers.get_one("origin").unwrap_or_default(),
        host: headers.get_one("host").unwrap_or_default(),
    };
    let pages = request.rocket().state::<OwnPages>();
    let ours = pages.is_some_and(|pages| pages.are_those_of(sender));
    if let Some(pages) = pages.filter(|_| !ours) {
        pages.tell(sender);
    }
    ours
}

/// The origin of an `https://` address as browsers write it (RFC 6454, 6.2): in ASCII, without the usual port.
fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let usual = if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        ":443"
    };
    let authority = authority.strip_suffix(usual).unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    // An address in brackets is no name.
    let ascii = idna::domain_to_ascii(host).unwrap_or_else(|_| host.to_owned());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{ascii}{port}").to_ascii_lowercase())
}

impl Fields {
    /// The fields of a form as a browser writes them, as text is stored; at most 200.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a form that is not in UTF-8: what it says could only be guessed.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let pairs = form_urlencoded::parse(text).take(FIELDS_MAX);
        // Browsers send line ends as two characters.
        let own = pairs.map(|(name, value)| {
            let value = text::composed(&value.replace("\r\n", "\n"));
            (name.into_owned(), value)
        });
        let fields = Self(own.collect());
        // The decoder writes a replacement for what it cannot read; browsers hardly ever send one.
        let replaced = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
        if fields
            .iter()
            .any(|(name, value)| replaced(name) || replaced(value))
            && !sends_it(text)
        {
            return Err(Error::faulty("form", Fault::Encoding));
        }
        Ok(fields)
    }

    fn without_csrf_token(mut self) -> Self {
        self.0.retain(|(name, _)| name != CSRF_FIELD);
        self
    }
}

/// Whether the replacement character itself is in a form.
fn sends_it(form: &[u8]) -> bool {
    let mut buffer = [0; 4];
    let plain = char::REPLACEMENT_CHARACTER.encode_utf8(&mut buffer);
    let escaped = b"%EF%BF%BD";
    form.windows(escaped.len())
        .any(|part| part.eq_ignore_ascii_case(escaped))
        || form
            .windows(plain.len())
            .any(|part| part == plain.as_bytes())
}

/// A form for a template: the values to begin with.
pub fn empty_form(values: Value) -> Value {
    json!({ "values": values, "errors": {}, "faults": [] })
}

/// The same with what was typed, and what is wrong with the field `name`; empty: with the whole.
pub fn with_error(fields: &Fields, name: &str, text: &str) -> Value {
    // The first of several fields of one name counts, as everywhere.
    let typed = fields.iter().collect::<Vec<_>>().into_iter().rev();
    let typed: Map<String, Value> = typed
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    json!({
        "values": typed,
        "errors": { name: text },
        "faults": [{ "field": name, "text": text }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_the_public_address_is_ours_whatever_the_host_says() {
        let pages = OwnPages::new(Some("https://Licenses.Example.org:443/"));
        let ours = |pages: &OwnPages, fetch_site, origin, host| {
            pages.are_those_of(Sender {
                fetch_site,
                origin,
                host,
            })
        };
        for (fetch_site, origin, host, expected) in [
            (Some("same-origin"), "", "", true),
            (
                Some("same-site"),
                "https://licenses.example.org",
                "licenses.example.org",
                false,
            ),
            (
                Some("cross-site"),
                "https://licenses.example.org",
                "licenses.example.org",
                false,
            ),
            (None, "https://licenses.example.org", "127.0.0.1:8443", true),
            (None, "https://licenses.example.org", "", true),
            (None, "https://127.0.0.1:8443", "127.0.0.1:8443", true),
            (None, "https://LOCALHOST:8443", "localhost:8443", true),
            (None, "http://licenses.example.org", "127.0.0.1:8443", false),
            (
                None,
                "https://licenses.example.org:8443",
                "127.0.0.1:8443",
                false,
            ),
            (
                None,
                "https://licenses.example.org.evil.example",
                "127.0.0.1:8443",
                false,
            ),
            (None, "https://evil.example", "licenses.example.org", false),
            (None, "null", "licenses.example.org", false),
            (None, "", "licenses.example.org", false),
            (None, "https://", "", false),
        ] {
            let told = ours(&pages, fetch_site, origin, host);
            assert_eq!(told, expected, "{fetch_site:?} {origin} {host}");
        }
        let without = OwnPages::new(None);
        assert!(!ours(
            &without,
            None,
            "https://licenses.example.org",
            "127.0.0.1"
        ));
        assert!(!ours(&without, None, "", ""));
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (url, origin) in [
            (
                "https://licenses.example.org",
                "https://licenses.example.org",
            ),
            (
                "https://licenses.example.org:8443/",
                "https://licenses.example.org:8443",
            ),
            (
                "https://B\u{fc}cher.example",
                "https://xn--bcher-kva.example",
            ),
            ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]"),
            ("https://192.0.2.1:9443", "https://192.0.2.1:9443"),
        ] {
            assert_eq!(origin_of(url).as_deref(), Some(origin), "{url}");
        }
    }

    #[test]
    fn fields_are_read_as_a_browser_writes_them() {
        let fields = Fields::parse("name=+K%C3%A4the+&note=a%0D%0Ab&on=&n=12".as_bytes()).unwrap();
        assert_eq!(fields.text("name"), "Käthe");
        assert_eq!(fields.raw("name"), " Käthe ");
        assert_eq!(fields.text("note"), "a\nb");
        assert!(fields.has("on") && !fields.has("off"));
        assert_eq!(fields.given("on"), None);
        assert_eq!(fields.number::<u32>("n").unwrap(), 12);
        assert!(fields.number::<u32>("name").is_err() && fields.number::<u8>("x").is_err());
    }

    #[test]
    fn a_form_is_read_in_utf_8_only_and_composed() {
        let read = |text: &str| {
            let fields = Fields::parse(text.as_bytes()).ok()?;
            Some((fields.text("a").to_owned(), fields.raw("a").to_owned()))
        };
        let told = |text: &str, raw: &str| Some((text.to_owned(), raw.to_owned()));
        for (sent, expected) in [
            ("a=Mu%CC%88ller", told("M\u{fc}ller", "M\u{fc}ller")),
            ("a=%EF%BB%BF+x%C2%A0", told("x", "\u{feff} x\u{a0}")),
            ("a=M%FCller", None),
            ("%FC=1", None),
            ("a=%ef%bf%bd", told("\u{fffd}", "\u{fffd}")),
        ] {
            assert_eq!(read(sent), expected, "{sent}");
        }
    }
}
