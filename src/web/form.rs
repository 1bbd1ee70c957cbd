//! Forms of the panel: limited in length, and protected against cross-site request forgery by two checks, the
//! browser's headers on the sender's origin and a token in the page. A page of another site can submit a form, but
//! can provide neither.

use std::sync::OnceLock;
use std::time::Duration;

use rocket::data::{Data, FromData, Outcome};
use rocket::http::Status;
use rocket::request::Request;
use serde_json::{Map, Value, json};

use super::connection::RequestContext;
use super::digests::{DIGESTS_FIELD, digests};
use super::stash::stash;
use crate::error::{Error, Fault, RefusalKind, Refused, Result};
use crate::logging::RateLimitedLine;
use crate::revision::Revision;
use crate::security::secret;
use crate::text;

/// Maximum length of a form from a logged-in administrator, in bytes: enough for a note of 10,000 characters, each
/// percent-encoded as several bytes.
pub const FORM_LEN_MAX: usize = 256 * 1024;
/// Maximum length of any other form, in bytes.
pub const OPEN_FORM_LEN_MAX: usize = 16 * 1024;
/// Maximum number of fields of a form: one for each row of the longest page of a list (200), and those about all of them.
const FIELDS_MAX: usize = 210;
/// Minimum time between two log lines about refused forms.
const LOG_EVERY: Duration = Duration::from_mins(1);
/// Maximum number of characters of a header that such a line shows.
const SHOWN_LEN_MAX: usize = 100;
/// The field with the CSRF token, which belongs to the login in the sender's browser.
pub const CSRF_FIELD: &str = "csrf_token";
/// The field with the revision from which a form was made: the state that its sender has seen.
pub(super) const REVISION_FIELD: &str = "seen";

/// The code of a form that fails the protection against cross-site request forgery.
pub const CSRF_FAILED: &str = "csrf_failed";

/// The CSRF token that forms in a request must contain. Set by the guard of the handler; `None` without a login.
#[derive(Debug, Default)]
pub struct ExpectedToken(Option<String>);

/// Requires `token` in forms of `request`.
pub fn expect_csrf_token(request: &Request<'_>, token: &str) {
    request.local_cache(|| ExpectedToken(Some(token.to_owned())));
}

/// A form from a page of the panel, with the CSRF token of its sender's login.
#[derive(Debug)]
pub struct Form(Fields);

/// A form from a page of the panel that needs no login: login and set-up.
#[derive(Debug)]
pub struct OpenForm {
    fields: Fields,
    has_valid_csrf_token: bool,
}

impl OpenForm {
    /// Whether it also contains the CSRF token of its sender's login.
    pub fn has_valid_csrf_token(&self) -> bool {
        self.has_valid_csrf_token
    }
}

/// A form for a route that must not reveal that it exists: `None` instead of a refusal.
#[derive(Debug)]
pub struct LenientForm(pub Option<Fields>);

/// The fields of a form, decoded by [`Fields::parse`]. [`Form`] and [`OpenForm`] have removed the CSRF token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of the first field `name`, trimmed of white space and invisible characters, which copying often
    /// leaves at the ends; empty if there is no such field.
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim_matches(text::is_trimmed)
    }

    /// The value of the first field `name`, untrimmed: a password may begin with a space.
    pub fn raw(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value)
    }

    /// As [`Fields::text`]; `None` if it is empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Whether there is a field `name`, such as a checked box or a pressed button.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    /// The revision from which the form was made, in its hidden field.
    pub fn revision(&self) -> Revision {
        Revision::parse(self.raw(REVISION_FIELD))
    }

    /// The same; `None` if the form has no such field, as that of a script may: then it overwrites whatever is saved.
    pub fn seen(&self) -> Option<Revision> {
        self.has(REVISION_FIELD).then(|| self.revision())
    }

    /// The integer in `name`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not an integer, or out of the range of `T`.
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
                let stale = request.local_cache(StaleForm::default);
                stale.0.get_or_init(|| fields);
                return Err(Refused::new(RefusalKind::Forbidden, CSRF_FAILED).into());
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
            has_valid_csrf_token: has_valid_csrf_token(request, &fields),
            fields: fields.without_csrf_token(),
        });
        outcome(request, read)
    }
}

#[rocket::async_trait]
impl<'r> FromData<'r> for LenientForm {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, _: Data<'r>) -> Outcome<'r, Self> {
        Outcome::Success(Self(read(request).await.ok()))
    }
}

/// Whether a form contains the CSRF token that the guard of the handler requires.
fn has_valid_csrf_token(request: &Request<'_>, fields: &Fields) -> bool {
    let expected = request.local_cache(ExpectedToken::default).0.as_deref();
    let given = fields.raw(CSRF_FIELD);
    expected.is_some_and(|token| secret::constant_time_eq(token.as_bytes(), given.as_bytes()))
}

fn outcome<'r, T>(request: &Request<'_>, read: Result<T>) -> Outcome<'r, T, ()> {
    match read {
        Ok(form) => Outcome::Success(form),
        Err(error) => {
            if !RequestContext::has_incomplete_body(request) {
                stash(request, error);
            }
            Outcome::Error((Status::Forbidden, ()))
        }
    }
}

async fn read(request: &Request<'_>) -> Result<Fields> {
    // If the handler requires a login, its guard has already run.
    let is_logged_in = request.local_cache(ExpectedToken::default).0.is_some();
    let max = if is_logged_in {
        FORM_LEN_MAX
    } else {
        OPEN_FORM_LEN_MAX
    };
    read_up_to(request, max).await
}

async fn read_up_to(request: &Request<'_>, max: usize) -> Result<Fields> {
    if !is_same_origin(request) {
        return Err(Refused::new(RefusalKind::Forbidden, CSRF_FAILED).into());
    }
    let given = request.headers().get_one("content-type");
    let media_type = given.unwrap_or_default().split(';').next().map(str::trim);
    if media_type != Some("application/x-www-form-urlencoded") {
        return Err(
            Refused::new(RefusalKind::UnsupportedMediaType, "unsupported_media_type").into(),
        );
    }
    let text = RequestContext::body(request, max).await?;
    Fields::parse(&text)
}

/// A form that came from a page of the panel, but not from one of the login in its sender's browser.
#[derive(Default)]
struct StaleForm(OnceLock<Fields>);

/// The form in a request that was refused because its login has ended: the one that a handler expected, or at most `max` bytes.
/// With the CSRF token, which says whose form it is. `None` if it is from another site, or cannot be read.
pub async fn of_ended_login(request: &Request<'_>, max: usize) -> Option<Fields> {
    match request.local_cache(StaleForm::default).0.get() {
        Some(stale) => Some(stale.clone()),
        None => read_up_to(request, max).await.ok(),
    }
}

/// The headers in which a browser states the origin of a form; empty if missing.
#[derive(Clone, Copy, Debug)]
struct Sender<'a> {
    fetch_site: Option<&'a str>,
    origin: &'a str,
    host: &'a str,
}

/// The origins whose pages may send forms, and the limit on log lines about others.
#[derive(Debug)]
pub struct AllowedOrigins {
    /// The origin of `public_url` as browsers write it: `https://licenses.example.org`.
    public: Option<String>,
    refused: RateLimitedLine,
}

impl AllowedOrigins {
    /// Allows the origin of `public_url`, and the one that the `Host` header of a request names.
    pub fn new(public_url: Option<&str>) -> Self {
        Self {
            public: public_url.and_then(origin_of),
            refused: RateLimitedLine::each(LOG_EVERY),
        }
    }

    /// Whether the browser states that a form was sent by a page of this server: current browsers do so in
    /// `Sec-Fetch-Site`, older ones in `Origin`. Without either header, the sender is not a browser that submits a
    /// form. A proxy may replace `Host` with its own name, so the origin of `public_url` is accepted with any `Host`.
    fn allows(&self, sender: Sender<'_>) -> bool {
        if let Some(site) = sender.fetch_site {
            return site == "same-origin";
        }
        let origin = sender.origin.to_ascii_lowercase();
        if self.public.as_ref() == Some(&origin) {
            return true;
        }
        let authority = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        !sender.host.is_empty() && authority == Some(&sender.host.to_ascii_lowercase())
    }

    /// Logs a refused form, at a limited rate, so that the operator can see which setting is missing.
    fn log_refused(&self, sender: Sender<'_>) {
        let Some(omitted) = self.refused.due() else {
            return;
        };
        let short = |text: &str| text.chars().take(SHOWN_LEN_MAX).collect::<String>();
        let site = sender
            .fetch_site
            .map(|site| format!(", Sec-Fetch-Site {site:?}"));
        log::warn!(
            "a form was refused because of its origin: Origin {:?}, Host {:?}{}; if that is the panel's own \
             address, set it as [server] public_url{omitted}",
            short(sender.origin),
            short(sender.host),
            short(&site.unwrap_or_default()),
        );
    }
}

/// Whether a form comes from a page of the panel; logs one that does not.
fn is_same_origin(request: &Request<'_>) -> bool {
    let headers = request.headers();
    let sender = Sender {
        fetch_site: headers.get_one("sec-fetch-site"),
        origin: headers.get_one("origin").unwrap_or_default(),
        host: headers.get_one("host").unwrap_or_default(),
    };
    let origins = request.rocket().state::<AllowedOrigins>();
    let is_allowed = origins.is_some_and(|origins| origins.allows(sender));
    if let Some(origins) = origins.filter(|_| !is_allowed) {
        origins.log_refused(sender);
    }
    is_allowed
}

/// The origin of a URL as browsers write it (RFC 6454, 6.2): in ASCII, without the default port of its scheme.
fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let default_port = if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        ":443"
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    // An IPv6 address in brackets is not a domain; it stays as it is.
    let ascii = idna::domain_to_ascii(host).unwrap_or_else(|_| host.to_owned());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{ascii}{port}").to_ascii_lowercase())
}

impl Fields {
    /// Decodes an `application/x-www-form-urlencoded` body: its first 200 fields, in Unicode normal form C.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the body is not UTF-8.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let pairs = form_urlencoded::parse(text).take(FIELDS_MAX);
        // Browsers send line breaks as CR LF.
        let normalized = pairs.map(|(name, value)| {
            let value = text::to_nfc(&value.replace("\r\n", "\n"));
            (name.into_owned(), value)
        });
        let fields = Self(normalized.collect());
        // The decoder replaces invalid bytes with U+FFFD, which browsers hardly ever send themselves.
        let replaced = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
        if fields
            .iter()
            .any(|(name, value)| replaced(name) || replaced(value))
            && !contains_replacement_character(text)
        {
            return Err(Error::field_fault("form", Fault::Encoding));
        }
        Ok(fields)
    }

    fn without_csrf_token(self) -> Self {
        self.without(&[CSRF_FIELD])
    }

    /// The form without the fields with these names.
    #[must_use]
    pub(super) fn without(mut self, names: &[&str]) -> Self {
        self.0.retain(|(name, _)| !names.contains(&name.as_str()));
        self
    }
}

/// Whether U+FFFD itself is in a form, plain or percent-encoded.
fn contains_replacement_character(form: &[u8]) -> bool {
    let mut buffer = [0; 4];
    let plain = char::REPLACEMENT_CHARACTER.encode_utf8(&mut buffer);
    let escaped = b"%EF%BF%BD";
    form.windows(escaped.len())
        .any(|part| part.eq_ignore_ascii_case(escaped))
        || form
            .windows(plain.len())
            .any(|part| part == plain.as_bytes())
}

/// A form for a template, with its initial values and no errors.
pub fn empty_form(values: Value) -> Value {
    let shown = digests(&values);
    json!({ "values": values, "was": shown, "errors": {}, "notes": {}, "faults": [] })
}

/// A form that is shown again with its input and an error.
pub struct RejectedForm<'f> {
    /// What was typed.
    pub fields: &'f Fields,
    /// The section of the texts for its invalid fields.
    pub section: &'static str,
    /// Why it was rejected.
    pub error: Error,
    /// The values that are saved, for an edit conflict.
    pub present: Option<Value>,
}

impl RejectedForm<'_> {
    /// The same. After an edit conflict, it is merged with these values, which are saved now.
    #[must_use]
    pub fn against(mut self, present: Value) -> Self {
        self.present = Some(present);
        self
    }
}

impl Fields {
    /// Replaces the value of a field.
    pub(super) fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

impl Fields {
    /// This form, rejected with `error`; `section` has the texts for its invalid fields.
    pub fn rejected(&self, section: &'static str, error: Error) -> RejectedForm<'_> {
        RejectedForm {
            fields: self,
            section,
            error,
            present: None,
        }
    }
}

/// A form for a template, with the values that were typed and what is wrong with them: pairs of a field and a text. The
/// field is empty if the text concerns the whole form, as it does if the form has no such field. In the summary, they
/// have the order of the fields.
pub fn with_errors(fields: &Fields, errors: Vec<(String, String)>) -> Value {
    // As in `Fields::raw`, the first of several fields with the same name counts: reversed, it is inserted last.
    let typed = fields.iter().collect::<Vec<_>>().into_iter().rev();
    let typed: Map<String, Value> = typed
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let place = |field: &str| fields.iter().position(|(name, _)| name == field);
    let shown = errors.into_iter().map(|(field, text)| match place(&field) {
        Some(place) => (Some(place), field, text),
        None => (None, String::new(), text),
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by_key(|(place, ..)| *place);
    let errors: Map<String, Value> = shown
        .iter()
        .map(|(_, field, text)| (field.clone(), text.as_str().into()))
        .collect();
    let faults = shown
        .iter()
        .map(|(_, field, text)| json!({ "field": field, "text": text, "is_at_field": !field.is_empty() }));
    let faults: Vec<Value> = faults.collect();
    let was = fields.raw(DIGESTS_FIELD);
    json!({ "values": typed, "was": was, "errors": errors, "notes": {}, "faults": faults })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_public_url_is_allowed_with_any_host() {
        let origins = AllowedOrigins::new(Some("https://Licenses.Example.org:443/"));
        let is_allowed = |origins: &AllowedOrigins, fetch_site, origin, host| {
            origins.allows(Sender {
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
            let actual = is_allowed(&origins, fetch_site, origin, host);
            assert_eq!(actual, expected, "{fetch_site:?} {origin} {host}");
        }
        let without_public_url = AllowedOrigins::new(None);
        assert!(!is_allowed(
            &without_public_url,
            None,
            "https://licenses.example.org",
            "127.0.0.1"
        ));
        assert!(!is_allowed(&without_public_url, None, "", ""));
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
    fn fields_are_decoded_as_browsers_encode_them() {
        let fields = Fields::parse("name=+K%C3%A4the+&note=a%0D%0Ab&on=&n=12".as_bytes()).unwrap();
        assert_eq!(fields.text("name"), "Käthe");
        assert_eq!(fields.raw("name"), " Käthe ");
        assert_eq!(fields.text("note"), "a\nb");
        assert!(fields.has("on") && !fields.has("off"));
        assert_eq!(fields.non_empty("on"), None);
        assert_eq!(fields.number::<u32>("n").unwrap(), 12);
        assert!(fields.number::<u32>("name").is_err() && fields.number::<u8>("x").is_err());
    }

    #[test]
    fn the_faults_of_a_form_have_the_order_of_its_fields() {
        let fields = Fields::parse(b"name=&email=ada&name=x").unwrap();
        let text = |field: &str, text: &str| (field.to_owned(), text.to_owned());
        let errors = vec![
            text("email", "no address"),
            text("name", "is empty"),
            text("code", "in no field"),
        ];
        let form = with_errors(&fields, errors);
        let faults = json!([
            { "field": "", "text": "in no field", "is_at_field": false },
            { "field": "name", "text": "is empty", "is_at_field": true },
            { "field": "email", "text": "no address", "is_at_field": true },
        ]);
        assert_eq!(form["faults"], faults);
        assert_eq!(form["errors"]["name"], "is empty");
        assert_eq!(form["values"]["name"], "");
    }

    #[test]
    fn a_form_must_be_utf_8_and_is_normalized() {
        let read = |text: &str| {
            let fields = Fields::parse(text.as_bytes()).ok()?;
            Some((fields.text("a").to_owned(), fields.raw("a").to_owned()))
        };
        let values = |text: &str, raw: &str| Some((text.to_owned(), raw.to_owned()));
        for (sent, expected) in [
            ("a=Mu%CC%88ller", values("M\u{fc}ller", "M\u{fc}ller")),
            ("a=%EF%BB%BF+x%C2%A0", values("x", "\u{feff} x\u{a0}")),
            ("a=M%FCller", None),
            ("%FC=1", None),
            ("a=%ef%bf%bd", values("\u{fffd}", "\u{fffd}")),
        ] {
            assert_eq!(read(sent), expected, "{sent}");
        }
    }
}
