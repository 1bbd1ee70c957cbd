//! Answers that a program can prove to be ours, to this request and to no other: what is signed, and what
//! the program has to say first.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Covered, Keys, content_digest};
use crate::clock::UnixMs;
use crate::error::{Error, Result};

/// The header by which a program asks for a signature.
pub const NONCE: &str = "Signature-Nonce";
/// The header that names a body by its digest.
pub const CONTENT_DIGEST: &str = "Content-Digest";
/// Bytes of a nonce.
const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=64;

/// What a program wants to find in the signature of the answer, as it wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce<'a>(&'a str);

impl<'a> Nonce<'a> {
    /// The nonce in the lines [`NONCE`] of a request; none where it asks for no signature.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no base64 of 16 to 64 bytes, and for several lines.
    pub fn of(mut lines: impl Iterator<Item = &'a str>) -> Result<Option<Self>> {
        let Some(line) = lines.next() else {
            return Ok(None);
        };
        let fits = STANDARD
            .decode(line)
            .is_ok_and(|bytes| NONCE_LEN.contains(&bytes.len()));
        if fits && lines.next().is_none() {
            return Ok(Some(Self(line)));
        }
        Err(Error::invalid(NONCE, "must be base64 of 16..64 bytes"))
    }
}

/// Refuses a request whose own `Content-Digest` is not that of its body as it arrived. It must be the one
/// that the answer's signature covers, so there is one form of it.
///
/// # Errors
/// [`Error::Invalid`].
pub fn request_digest<'a>(lines: impl Iterator<Item = &'a str>, body: &[u8]) -> Result<()> {
    let lines: Vec<&str> = lines.collect();
    if lines.is_empty() || lines == [content_digest(body)] {
        return Ok(());
    }
    let problem = "must be sha-256 of the body, and nothing else";
    Err(Error::invalid(CONTENT_DIGEST, problem))
}

/// A request and what is answered to it.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The request's method.
    pub method: &'a str,
    /// Its path, without a query.
    pub path: &'a str,
    /// Its query, without the question mark; none where it has none.
    pub query: Option<&'a str>,
    /// Its body as it arrived; none where it has none, or was not read to its end.
    pub request: Option<&'a [u8]>,
    /// The answer's status.
    pub status: u16,
    /// The answer's body.
    pub answer: &'a [u8],
}

impl Exchange<'_> {
    /// The header lines that the answer must carry to be believed.
    pub fn signed(
        &self,
        keys: &Keys,
        nonce: Nonce<'_>,
        now: UnixMs,
    ) -> [(&'static str, String); 3] {
        let (status, digest) = (self.status.to_string(), content_digest(self.answer));
        let request = self.request.map(content_digest);
        let mut components = vec![
            ("\"@status\"", status.as_str()),
            ("\"content-digest\"", &digest),
            ("\"@method\";req", self.method),
            ("\"@path\";req", self.path),
        ];
        // RFC 9421 §2.2.7: with its question mark.
        let query = self.query.map(|query| format!("?{query}"));
        if let Some(query) = &query {
            components.push(("\"@query\";req", query));
        }
        if let Some(request) = &request {
            components.push(("\"content-digest\";req", request));
        }
        let covered = Covered {
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
    fn a_nonce_is_base64_of_16_to_64_bytes_and_one_line() {
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
            let told = Nonce::of(lines.iter().map(String::as_str));
            assert_eq!(told.is_ok(), good, "{lines:?}");
            assert_ne!(told.ok(), Some(None));
        }
        assert_eq!(Nonce::of(std::iter::empty()).unwrap(), None);
    }

    #[test]
    fn a_digest_that_was_sent_is_that_of_the_body() {
        let (right, wrong) = (content_digest(b"{}"), content_digest(b"{ }"));
        for (lines, good) in [
            (vec![], true),
            (vec![right.as_str()], true),
            (vec![wrong.as_str()], false),
            (vec![right.as_str(), right.as_str()], false),
            (vec!["sha-512=:AAAA:"], false),
            (vec![""], false),
        ] {
            let told = request_digest(lines.iter().copied(), b"{}");
            assert_eq!(told.is_ok(), good, "{lines:?}");
        }
    }
}
