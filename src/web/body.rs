//! Strict parsing of JSON bodies: input that parsers may interpret differently is refused.

use std::fmt;

use rocket::data::{Data, FromData, Outcome};
use rocket::http::Status;
use rocket::request::Request;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::connection::RequestContext;
use super::guards;
use super::stash::stash;
use crate::error::{Error, Fault, RefusalKind, Refused, Result};
use crate::security::signing;
use crate::text;

/// Maximum length of a body, in bytes.
pub const BODY_LEN_MAX: usize = 16 * 1024;
/// Maximum nesting depth of a body.
const DEPTH_MAX: u32 = 16;
/// Maximum number of elements of one array or object.
const ELEMENTS_MAX: usize = 1024;

/// The fields of a JSON object, taken out by name.
#[derive(Debug)]
pub struct JsonFields(Map<String, Value>);

/// A type that can be read from the fields of a body.
pub trait FromFields: Sized {
    /// Reads the fields one by one; the first invalid one is reported.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the first invalid field.
    fn from_fields(fields: &mut JsonFields) -> Result<Self>;
}

/// A valid body. An invalid one is answered with a problem document.
pub struct Body<T>(pub T);

impl JsonFields {
    /// The string field `name`, of 1 to `max` characters.
    ///
    /// # Errors
    /// If it is missing, not a string, empty, too long, or contains a control character.
    pub fn text(&mut self, name: &'static str, max: usize) -> Result<String> {
        self.text_with(name, max, str::to_owned)
    }

    /// The string field `name` after `read` has normalized it. Length and control characters are checked on the
    /// result.
    ///
    /// # Errors
    /// As [`JsonFields::text`].
    pub fn text_with(
        &mut self,
        name: &'static str,
        max: usize,
        read: fn(&str) -> String,
    ) -> Result<String> {
        match self.0.remove(name) {
            Some(Value::String(text)) if text.is_empty() => {
                Err(Error::field_fault(name, Fault::Empty))
            }
            Some(Value::String(text)) => check_length_and_controls(name, read(&text), max),
            Some(_) => Err(Error::field_fault(name, Fault::NotText)),
            None => Err(Error::field_fault(name, Fault::Missing)),
        }
    }

    /// The string field `name`; `None` if it is missing or null.
    ///
    /// # Errors
    /// As [`JsonFields::text`], if it is present.
    pub fn optional_text(&mut self, name: &'static str, max: usize) -> Result<Option<String>> {
        self.optional_text_with(name, max, str::to_owned)
    }

    /// The string field `name` after `read` has normalized it; `None` if it is missing or null.
    ///
    /// # Errors
    /// As [`JsonFields::text_with`], if it is present.
    pub fn optional_text_with(
        &mut self,
        name: &'static str,
        max: usize,
        read: fn(&str) -> String,
    ) -> Result<Option<String>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text_with(name, max, read).map(Some),
        }
    }

    /// The string field `name`, parsed as a `T`.
    ///
    /// # Errors
    /// As [`JsonFields::text`], and if it does not parse.
    pub fn parsed<T: std::str::FromStr<Err: fmt::Display>>(
        &mut self,
        name: &'static str,
        max: usize,
    ) -> Result<T> {
        let text = self.text(name, max)?;
        text.parse()
            .map_err(|problem: T::Err| Error::invalid(name, problem.to_string()))
    }
}

impl JsonFields {
    /// Refuses control characters in the fields that were not read, because they could end up in a log, too.
    fn check_unread_fields(&self) -> Result<()> {
        if object_contains_control(&self.0) {
            return Err(Error::field_fault("body", Fault::Control));
        }
        Ok(())
    }
}

/// Whether a string in `value`, which is at most [`DEPTH_MAX`] levels deep, contains a control character.
fn value_contains_control(value: &Value) -> bool {
    match value {
        Value::String(text) => contains_control(text),
        Value::Array(values) => values.iter().any(value_contains_control),
        Value::Object(object) => object_contains_control(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn object_contains_control(object: &Map<String, Value>) -> bool {
    object
        .iter()
        .any(|(key, value)| contains_control(key) || value_contains_control(value))
}

fn contains_control(text: &str) -> bool {
    text.contains(|c: char| c < ' ' || c == '\u{7f}')
}

fn check_length_and_controls(name: &'static str, text: String, max: usize) -> Result<String> {
    if text.chars().nth(max).is_some() {
        Err(Error::field_fault(name, Fault::TooLong(max)))
    } else if contains_control(&text) {
        Err(Error::field_fault(name, Fault::Control))
    } else {
        Ok(text)
    }
}

/// A body for routes that must not reveal why they refuse a request: `None` if it is invalid. The `Content-Type` is not
/// checked.
pub struct Lenient<T>(pub Option<T>);

#[rocket::async_trait]
impl<'r, T: FromFields> FromData<'r> for Lenient<T> {
    type Error = std::convert::Infallible;

    async fn from_data(request: &'r Request<'_>, _: Data<'r>) -> Outcome<'r, Self> {
        let read = async {
            let mut fields = parse(&RequestContext::body(request, BODY_LEN_MAX).await?)?;
            let value = T::from_fields(&mut fields)?;
            fields.check_unread_fields()?;
            Ok::<T, Error>(value)
        };
        let value = read
            .await
            .inspect_err(|error| log::debug!("an invalid body is ignored: {error}"));
        Outcome::Success(Self(value.ok()))
    }
}

#[rocket::async_trait]
impl<'r, T: FromFields> FromData<'r> for Body<T> {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, _: Data<'r>) -> Outcome<'r, Self> {
        let read = async {
            require_json(request)?;
            let text = RequestContext::body(request, BODY_LEN_MAX).await?;
            let mut fields = parse(&text)?;
            let value = T::from_fields(&mut fields)?;
            fields.check_unread_fields()?;
            if guards::wants_signature(request)? {
                let digests = request.headers().get(signing::CONTENT_DIGEST);
                signing::check_request_digest(digests, &text)?;
            }
            Ok(value)
        };
        match read.await {
            Ok(value) => Outcome::Success(Self(value)),
            Err(error) => {
                if !RequestContext::has_incomplete_body(request) {
                    stash(request, error);
                }
                Outcome::Error((Status::BadRequest, ()))
            }
        }
    }
}

fn require_json(request: &Request<'_>) -> Result<()> {
    let given = request
        .headers()
        .get_one("content-type")
        .unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refused::new(RefusalKind::UnsupportedMediaType, "unsupported_media_type").into())
}

/// The fields of the JSON object in `bytes`. A leading byte order mark is skipped (RFC 8259, 8.1).
///
/// # Errors
/// `malformed_json` for anything but an object, and for input on which parsers differ: a duplicate key, a lone
/// surrogate, nesting deeper than 16. A wrong encoding, an empty body and a non-object are named as the reason.
pub fn parse(bytes: &[u8]) -> Result<JsonFields> {
    let malformed = || Refused::new(RefusalKind::Malformed, "malformed_json");
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| wide_encoding(text.as_bytes()).is_none());
    let Some(text) = text.map(text::without_bom) else {
        let encoding = wide_encoding(bytes).unwrap_or("not_utf_8");
        return Err(malformed().with_text_key(encoding).into());
    };
    if text.trim().is_empty() {
        return Err(malformed().with_text_key("no_body").into());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: DEPTH_MAX }.deserialize(&mut reader);
    let ended = reader.end();
    match (value, ended) {
        (Ok(Value::Object(map)), Ok(())) => Ok(JsonFields(map)),
        (Ok(_), Ok(())) => Err(malformed().with_text_key("no_object").into()),
        _ => Err(malformed().into()),
    }
}

/// The encoding of `bytes` if it is UTF-16 or UTF-32, with or without a byte order mark. JSON begins with an
/// ASCII character and contains no zero byte in UTF-8, so the positions of the zeros identify the encoding
/// (RFC 4627, 3).
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..]
        | [0, 0, 0xfe, 0xff, ..]
        | [0, 0, 0, 1..=255, ..]
        | [1..=255, 0, 0, 0, ..] => Some("utf_32"),
        [0xff, 0xfe, ..]
        | [0xfe, 0xff, ..]
        | [0, 1..=255, 0, ..]
        | [1..=255, 0, 1..=255, 0, ..]
        | [0, _]
        | [_, 0] => Some("utf_16"),
        _ => None,
    }
}

/// Deserializes any JSON value of at most `depth` levels and without duplicate keys.
#[derive(Clone, Copy)]
struct Strict {
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth })
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            if values.len() == ELEMENTS_MAX {
                return Err(serde::de::Error::custom("too many elements"));
            }
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(inner)?;
            if map.len() == ELEMENTS_MAX || map.insert(key, value).is_some() {
                return Err(serde::de::Error::custom(
                    "too many keys, or a duplicate key",
                ));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: Error) -> String {
        match error {
            Error::Refused(refused) => refused.code.to_owned(),
            Error::Invalid { field, .. } => field.to_owned(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn ambiguous_json_is_refused() {
        let deep =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        for text in [
            "",
            " ",
            "null",
            "[]",
            "\"x\"",
            "1",
            "{",
            "{}x",
            "{} {}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":1,\"a\":1}",
            "{\"b\":{\"a\":1,\"a\":2}}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\\ud800\"}",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "{\"a\":01}",
            "{\"a\":\"\t\"}",
            "\u{feff}\u{feff}{}",
            "{\u{feff}}",
            &deep(16),
        ] {
            assert_eq!(
                code(parse(text.as_bytes()).unwrap_err()),
                "malformed_json",
                "{text}"
            );
        }
        assert_eq!(
            code(parse(b"{\"a\":\"\xff\"}").unwrap_err()),
            "malformed_json"
        );
        assert!(parse(deep(15).as_bytes()).is_ok());
        assert!(parse("\u{feff}{\"a\":1}".as_bytes()).is_ok());
        assert!(parse(b" {\"a\":\"\\ud83d\\ude00\",\"b\":[1,-2,3.5,true,null]} ").is_ok());
    }

    #[test]
    fn a_wrong_encoding_is_named() {
        let json = "{\"a\":\"\u{fc}\"}";
        let utf_16: Vec<u16> = json.encode_utf16().collect();
        let both = |units: &[u16]| {
            let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            [little, big]
        };
        let marked: Vec<u16> = std::iter::once(0xfeff)
            .chain(utf_16.iter().copied())
            .collect();
        let utf_32 = |mark: &str| {
            let text = format!("{mark}{json}");
            let little = text.chars().flat_map(|c| u32::from(c).to_le_bytes());
            let big = text.chars().flat_map(|c| u32::from(c).to_be_bytes());
            [little.collect::<Vec<u8>>(), big.collect()]
        };
        let latin_1: Vec<u8> = json.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let mut table = vec![
            (latin_1, "not_utf_8"),
            (b"{\"a\":\"\xed\xa0\x80\"}".to_vec(), "not_utf_8"),
        ];
        table.extend(
            [both(&utf_16), both(&marked)]
                .into_iter()
                .flatten()
                .map(|bytes| (bytes, "utf_16")),
        );
        table.extend(
            [utf_32(""), utf_32("\u{feff}")]
                .into_iter()
                .flatten()
                .map(|bytes| (bytes, "utf_32")),
        );
        table.extend([
            (b"[]".to_vec(), "no_object"),
            (b" ".to_vec(), "no_body"),
            ("\u{feff}".into(), "no_body"),
        ]);
        for (bytes, why) in table {
            match parse(&bytes).unwrap_err() {
                Error::Refused(refused) => {
                    assert_eq!(
                        (refused.code, refused.why),
                        ("malformed_json", Some(why)),
                        "{bytes:?}"
                    );
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn an_invalid_field_is_named() {
        for text in [
            "{}",
            "{\"a\":null}",
            "{\"a\":1}",
            "{\"a\":\"\"}",
            "{\"a\":\"xxxxx\"}",
            "{\"a\":\"x\\n\"}",
            "{\"a\":\"\\u007f\"}",
            "{\"a\":[\"x\"]}",
        ] {
            let error = parse(text.as_bytes()).unwrap().text("a", 4).unwrap_err();
            assert_eq!(code(error), "a", "{text}");
        }
        for (text, good) in [
            ("{\"b\":\"x\\n\"}", false),
            ("{\"b\":[{\"c\":\"\\u0001\"}]}", false),
            ("{\"b\\t\":1}", false),
            ("{\"b\":[{\"c\":\"x\"}]}", true),
        ] {
            assert_eq!(
                parse(text.as_bytes())
                    .unwrap()
                    .check_unread_fields()
                    .is_ok(),
                good,
                "{text}"
            );
        }
        let text = "{\"a\":\"äöü😀\"}";
        assert_eq!(
            parse(text.as_bytes()).unwrap().text("a", 4).unwrap(),
            "äöü😀"
        );
        assert_eq!(parse(b"{}").unwrap().optional_text("a", 4).unwrap(), None);
    }
}
