//! The server's signature: an Ed25519 key pair, HTTP message signatures with it (RFC 9421) over bodies that
//! are named by their digest (RFC 9530), and signed JSON (RFC 7515, RFC 8037).
//!
//! Which key pairs there are is the matter of the room `keys`.

mod answers;
pub mod files;

pub use answers::{CONTENT_DIGEST, Exchange, NONCE, Nonce, request_digest};

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::secret::{self, Secret};
use crate::clock::UnixMs;
use crate::error::{Doing, Error, Result};

/// Bytes of a key, either half.
pub const KEY_LEN: usize = 32;

/// What others verify our signatures with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    /// What messages name it by: 16 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> String {
        secret::hex(&secret::sha256(&self.0))
            .chars()
            .take(16)
            .collect()
    }

    /// Its 32 bytes in base64.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// The same as a PEM block.
    pub fn pem(&self) -> String {
        files::public_pem(self)
    }
}

/// A key pair.
pub struct Keys {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.public).finish()
    }
}

impl Keys {
    /// The key pair that follows from 32 random bytes.
    ///
    /// # Errors
    /// When nothing follows from them.
    pub fn of(seed: &Secret<[u8; KEY_LEN]>) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.reveal());
        let pair = pair.map_err(|rejected| Error::Internal {
            doing: "take a signing key",
            source: rejected.to_string().into(),
        })?;
        let bytes = pair.public_key().as_ref().try_into();
        let public = PublicKey(bytes.doing("take the public half of a signing key")?);
        Ok(Self { pair, public })
    }

    /// What others verify with.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The header lines `Signature-Input` and `Signature` for a message of these components.
    pub fn signature(&self, covered: &Covered<'_>) -> [(&'static str, String); 2] {
        let params = covered.params(&self.public.id());
        let signed = self.pair.sign(covered.base(&params).as_bytes());
        [
            ("Signature-Input", format!("sig1={params}")),
            ("Signature", format!("sig1=:{}:", STANDARD.encode(signed))),
        ]
    }

    /// Every header line that a POST of `body` to `target` must carry to be believed.
    pub fn signed_post(
        &self,
        target: &str,
        body: &str,
        now: UnixMs,
    ) -> Vec<(&'static str, String)> {
        let digest = content_digest(body.as_bytes());
        let covered = Covered {
            components: &[
                ("\"@method\"", "POST"),
                ("\"@target-uri\"", target),
                ("\"content-digest\"", &digest),
            ],
            created: now,
            nonce: None,
        };
        let signature = self.signature(&covered);
        std::iter::once((CONTENT_DIGEST, digest))
            .chain(signature)
            .collect()
    }

    /// `claims`, which are JSON, as a signed token of the type `kind`: a compact JWS.
    pub fn token(&self, kind: &str, claims: &str) -> String {
        let header = serde_json::json!({ "alg": "EdDSA", "typ": kind, "kid": self.public.id() });
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(claims));
        let signed = self.pair.sign(token.as_bytes());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signed));
        token
    }
}

/// The key pair in force. Another may take its place at any moment.
#[derive(Debug)]
pub struct Signer(RwLock<Arc<Keys>>);

impl Signer {
    /// Signs with `keys`.
    pub fn new(keys: Keys) -> Self {
        Self(RwLock::new(Arc::new(keys)))
    }

    /// The key pair in force.
    pub fn keys(&self) -> Arc<Keys> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on signs with `keys`.
    pub fn take(&self, keys: Keys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

/// What a signature is over, apart from who made it and when.
#[derive(Clone, Copy, Debug)]
pub struct Covered<'a> {
    /// Identifiers as they are written, such as `"@path";req`, and their values.
    pub components: &'a [(&'a str, &'a str)],
    /// When it is made.
    pub created: UnixMs,
    /// What the other side wants to find in it.
    pub nonce: Option<&'a str>,
}

impl Covered<'_> {
    /// The signature's parameters, RFC 9421, 2.3.
    fn params(&self, key_id: &str) -> String {
        let names: Vec<&str> = self.components.iter().map(|(name, _)| *name).collect();
        let (names, created) = (names.join(" "), self.created.0.div_euclid(1000));
        let mut params = format!("({names});created={created};keyid=\"{key_id}\";alg=\"ed25519\"");
        if let Some(nonce) = self.nonce {
            params.push_str(";nonce=\"");
            params.push_str(nonce);
            params.push('"');
        }
        params
    }

    /// What is signed, RFC 9421, 2.5.
    fn base(&self, params: &str) -> String {
        let mut base = String::new();
        for (name, value) in self.components {
            base.extend([name, ": ", value, "\n"]);
        }
        base + "\"@signature-params\": " + params
    }
}

/// The value of `Content-Digest` for `body`, RFC 9530.
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(secret::sha256(body)))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn keys() -> Keys {
        Keys::of(&Secret::new([7; KEY_LEN])).unwrap()
    }

    fn public(keys: &Keys) -> UnparsedPublicKey<[u8; KEY_LEN]> {
        UnparsedPublicKey::new(&ED25519, keys.public().0)
    }

    #[test]
    fn a_signature_is_over_every_component_and_parameter() {
        let keys = keys();
        let (target, body) = ("https://shop.example/callback", "{\"step\":\"challenge\"}");
        let lines = keys.signed_post(target, body, UnixMs(1_618_884_473_999));
        let line = |name: &str| {
            let found = lines.iter().find(|(known, _)| *known == name);
            found.unwrap().1.clone()
        };
        let (id, digest) = (keys.public().id(), content_digest(body.as_bytes()));
        let params = format!(
            "(\"@method\" \"@target-uri\" \"content-digest\");created=1618884473;keyid=\"{id}\";alg=\"ed25519\""
        );
        assert_eq!(line("Content-Digest"), digest);
        assert_eq!(line("Signature-Input"), format!("sig1={params}"));
        let base = format!(
            "\"@method\": POST\n\"@target-uri\": {target}\n\"content-digest\": {digest}\n\"@signature-params\": {params}"
        );
        let signature = line("Signature");
        let signature = signature
            .strip_prefix("sig1=:")
            .unwrap()
            .strip_suffix(':')
            .unwrap();
        let signature = STANDARD.decode(signature).unwrap();
        assert!(public(&keys).verify(base.as_bytes(), &signature).is_ok());
        assert!(
            public(&keys)
                .verify(base.replace("POST", "GET").as_bytes(), &signature)
                .is_err()
        );
    }

    #[test]
    fn a_token_is_three_parts_of_which_the_last_signs_the_others() {
        let keys = keys();
        let token = keys.token("x+jwt", "{\"a\":1}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let read = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let id = keys.public().id();
        let expected = format!("{{\"alg\":\"EdDSA\",\"typ\":\"x+jwt\",\"kid\":\"{id}\"}}");
        assert_eq!((read(header), read(claims)), (expected, "{\"a\":1}".into()));
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(public(&keys).verify(signed.as_bytes(), &signature).is_ok());
    }

    #[test]
    fn the_next_answer_is_signed_with_the_key_that_was_taken() {
        let signer = Signer::new(keys());
        let other = Keys::of(&Secret::new([8; KEY_LEN])).unwrap();
        let public = other.public();
        assert_ne!(signer.keys().public(), public);
        signer.take(other);
        assert_eq!(signer.keys().public(), public);
    }

    #[test]
    fn a_digest_is_that_of_the_standard() {
        // RFC 9530, appendix B.1 has it for the SHA-256 of {"hello": "world"} and a line feed.
        let expected = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert_eq!(content_digest(b"{\"hello\": \"world\"}\n"), expected);
    }
}
