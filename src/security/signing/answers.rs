//! Signed responses: the signature covers the response, the request that it answers, and the nonce that the program
//! sent, so that a response cannot be forged or replayed for another request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{CoveredComponents, SigningKeyPair, content_digest};
use crate::clock::UnixMs;
use crate::error::{Error, Result};

/// The request header with which a program asks for a signature.
pub const NONCE: &str = "Signature-Nonce";
/// The header with the digest of a body (RFC 9530).
pub const CONTENT_DIGEST: &str = "Content-Digest";
/// Allowed length of a nonce, in bytes.
const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=64;

/// The nonce that a program expects in the signature of the response: base64, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce<'a>(&'a str);

impl<'a> Nonce<'a> {
    /// The nonce in the [`NONCE`] headers of a request. `None` if the program asks for no signature.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless it is base64 of 16 to 64 bytes, and for more than one header.
    pub fn parse(mut lines: impl Iterator<Item = &'a str>) -> Result<Option<Self>> {
        let Some(line) = lines.next() else {
            return Ok(None);
        };
        let is_valid = STANDARD
            .decode(line)
            .is_ok_and(|bytes| NONCE_LEN.contains(&bytes.len()));
        if is_valid && lines.next().is_none() {
            return Ok(Some(Self(line)));
        }
        Err(Error::invalid(NONCE, "must be base64 of 16..64 bytes"))
    }
}

/// Checks the `Content-Digest` headers of a request against its body as received. The only accepted form is the one
/// that the response's signature covers. A request without the header passes.
///
/// # Errors
/// [`Error::Invalid`] if the digest differs, has another form, or is sent twice.
pub fn check_request_digest<'a>(lines: impl Iterator<Item = &'a str>, body: &[u8]) -> Result<()> {
    let lines: Vec<&str> = lines.collect();
    if lines.is_empty() || lines == [content_digest(body)] {
        return Ok(());
    }
    let problem = "must be sha-256 of the body, and nothing else";
    Err(Error::invalid(CONTENT_DIGEST, problem))
}

/// A request and its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The request's path, without the query.
    pub path: &'a str,
    /// The request's query, without the question mark. `None` if it has none.
    pub query: Option<&'a str>,
    /// The request's body as received. `None` if it has none, or if it was not read to its end.
    pub request_body: Option<&'a [u8]>,
    /// The response's status.
    pub status: u16,
    /// The response's body.
    pub response_body: &'a [u8],
}

impl Exchange<'_> {
    /// The headers that make the response verifiable: the digest of its body and the signature.
    pub fn signature_headers(
        &self,
        keys: &SigningKeyPair,
        nonce: Nonce<'_>,
        now: UnixMs,
    ) -> [(&'static str, String); 3] {
        let (status, digest) = (self.status.to_string(), content_digest(self.response_body));
        let request = self.request_body.map(content_digest);
        let mut components = vec![
            ("\"@status\"", status.as_str()),
            ("\"content-digest\"", &digest),
            ("\"@method\";req", self.method),
            ("\"@path\";req", self.path),
        ];
        // RFC 9421 §2.2.7: the value includes the question mark.
        let query = self.query.map(|query| format!("?{query}"));
        if let Some(query) = &query {
            components.push(("\"@query\";req", query));
        }
        if let Some(request) = &request {
            components.push(("\"content-digest\";req", request));
        }
        let covered = CoveredComponents {
            components: &components,
            created: now,
            nonce: Some(nonce.0),
        };
        let [input, signature] = keys.signature(&covered);
        [(CONTENT_DIGEST, digest), input, signature]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_one_header_with_base64_of_16_to_64_bytes() {
        let of = |bytes: usize| STANDARD.encode(vec![0xfb; bytes]);
        for (lines, good) in [
            (vec![of(16)], true),
            (vec![of(64)], true),
            (vec![of(15)], false),
            (vec![of(65)], false),
            (vec![String::new()], false),
            (vec![of(16).trim_end_matches('=').to_owned()], false),
            (vec![of(18).replace('+', "-")], false),
            (vec![format!("{}\"", of(18))], false),
            (vec![of(16), of(16)], false),
        ] {
            let result = Nonce::parse(lines.iter().map(String::as_str));
            assert_eq!(result.is_ok(), good, "{lines:?}");
            assert_ne!(result.ok(), Some(None));
        }
        assert_eq!(Nonce::parse(std::iter::empty()).unwrap(), None);
    }

    #[test]
    fn a_request_digest_must_match_the_body() {
        let (right, wrong) = (content_digest(b"{}"), content_digest(b"{ }"));
        for (lines, good) in [
            (vec![], true),
            (vec![right.as_str()], true),
            (vec![wrong.as_str()], false),
            (vec![right.as_str(), right.as_str()], false),
            (vec!["sha-512=:AAAA:"], false),
            (vec![""], false),
        ] {
            let result = check_request_digest(lines.iter().copied(), b"{}");
            assert_eq!(result.is_ok(), good, "{lines:?}");
        }
    }
}
