//! The server's signatures: Ed25519 key pairs, HTTP message signatures (RFC 9421) that cover the digest of the body
//! (RFC 9530), and signed JSON (RFC 7515, RFC 8037).
//!
//! The module `signing_keys` manages which key pairs exist and rotates them.

mod answers;
pub mod files;

pub use answers::{CONTENT_DIGEST, Exchange, NONCE, Nonce, check_request_digest};

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::secret::{self, Secret};
use crate::clock::UnixMs;
use crate::error::{Doing, Error, Result};

/// Length of a key in bytes, private or public.
pub const KEY_LEN: usize = 32;

/// The public key that programs and sites verify signatures with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; KEY_LEN]);

impl PublicKey {
    /// The key id in signatures: the first 16 hexadecimal digits of its SHA-256.
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

    /// The key as a PEM block.
    pub fn pem(&self) -> String {
        files::public_pem(self)
    }
}

/// A key pair.
pub struct SigningKeyPair {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.public).finish()
    }
}

impl SigningKeyPair {
    /// The key pair of a seed of 32 random bytes.
    pub fn from_seed(seed: &Secret<[u8; KEY_LEN]>) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.reveal());
        let pair = pair.map_err(|rejected| Error::Internal {
            doing: "load a signing key",
            source: rejected.to_string().into(),
        })?;
        let bytes = pair.public_key().as_ref().try_into();
        let public = PublicKey(bytes.doing("read the public half of a signing key")?);
        Ok(Self { pair, public })
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The headers `Signature-Input` and `Signature` over these components.
    pub fn signature(&self, covered: &CoveredComponents<'_>) -> [(&'static str, String); 2] {
        let params = covered.params(&self.public.id());
        let signed = self.pair.sign(covered.base(&params).as_bytes());
        [
            ("Signature-Input", format!("sig1={params}")),
            ("Signature", format!("sig1=:{}:", STANDARD.encode(signed))),
        ]
    }

    /// All headers that make a POST of `body` to the URL `target` verifiable.
    pub fn post_headers(
        &self,
        target: &str,
        body: &str,
        now: UnixMs,
    ) -> Vec<(&'static str, String)> {
        let digest = content_digest(body.as_bytes());
        let covered = CoveredComponents {
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

    /// A compact JWS with the header `typ: kind`, signed over `claims`, which are JSON.
    pub fn signed_jws(&self, kind: &str, claims: &str) -> String {
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

/// Holds the current key pair, which a rotation replaces while the server runs.
#[derive(Debug)]
pub struct Signer(RwLock<Arc<SigningKeyPair>>);

impl Signer {
    /// A signer whose current key pair is `keys`.
    pub fn new(keys: SigningKeyPair) -> Self {
        Self(RwLock::new(Arc::new(keys)))
    }

    /// The current key pair.
    pub fn key_pair(&self) -> Arc<SigningKeyPair> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes `keys` the current key pair.
    pub fn replace(&self, keys: SigningKeyPair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

/// What a signature covers, and its parameters except the key (RFC 9421, 2).
#[derive(Clone, Copy, Debug)]
pub struct CoveredComponents<'a> {
    /// Component identifiers as they are serialized, such as `"@path";req`, and their values.
    pub components: &'a [(&'a str, &'a str)],
    /// When the signature is made.
    pub created: UnixMs,
    /// The nonce that the other side sent.
    pub nonce: Option<&'a str>,
}

impl CoveredComponents<'_> {
    /// The signature parameters (RFC 9421, 2.3).
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

    /// The signature base: the text that is signed (RFC 9421, 2.5).
    fn base(&self, params: &str) -> String {
        let mut base = String::new();
        for (name, value) in self.components {
            base.extend([name, ": ", value, "\n"]);
        }
        base + "\"@signature-params\": " + params
    }
}

/// The value of `Content-Digest` for `body` (RFC 9530).
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(secret::sha256(body)))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn keys() -> SigningKeyPair {
        SigningKeyPair::from_seed(&Secret::new([7; KEY_LEN])).unwrap()
    }

    fn public(keys: &SigningKeyPair) -> UnparsedPublicKey<[u8; KEY_LEN]> {
        UnparsedPublicKey::new(&ED25519, keys.public().0)
    }

    #[test]
    fn a_signature_covers_every_component_and_parameter() {
        let keys = keys();
        let (target, body) = ("https://shop.example/callback", "{\"step\":\"challenge\"}");
        let lines = keys.post_headers(target, body, UnixMs(1_618_884_473_999));
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
    fn a_token_has_three_parts_and_the_last_one_signs_the_others() {
        let keys = keys();
        let token = keys.signed_jws("x+jwt", "{\"a\":1}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let decoded =
            |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let id = keys.public().id();
        let expected = format!("{{\"alg\":\"EdDSA\",\"typ\":\"x+jwt\",\"kid\":\"{id}\"}}");
        assert_eq!(
            (decoded(header), decoded(claims)),
            (expected, "{\"a\":1}".into())
        );
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(public(&keys).verify(signed.as_bytes(), &signature).is_ok());
    }

    #[test]
    fn a_signer_signs_with_the_key_pair_that_replaced_the_first() {
        let signer = Signer::new(keys());
        let other = SigningKeyPair::from_seed(&Secret::new([8; KEY_LEN])).unwrap();
        let public = other.public();
        assert_ne!(signer.key_pair().public(), public);
        signer.replace(other);
        assert_eq!(signer.key_pair().public(), public);
    }

    #[test]
    fn a_content_digest_matches_the_example_of_the_standard() {
        // RFC 9530, appendix B.1: the SHA-256 of {"hello": "world"} and a line feed.
        let expected = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert_eq!(content_digest(b"{\"hello\": \"world\"}\n"), expected);
    }
}
