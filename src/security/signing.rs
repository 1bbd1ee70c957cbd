//! The server's signature: an Ed25519 key pair of its own beside the database, and HTTP message signatures
//! with it (RFC 9421) over bodies that are named by their digest (RFC 9530).
//!
//! Sites and programs know the public key by heart. So it is made once, and a lost one is not replaced
//! without a word: everything that is out there would stop believing us.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::secret;
use crate::clock::UnixMs;
use crate::error::{Doing, Error, Result};

/// The folder beside the database.
const FOLDER: &str = "signing";
const KEY_FILE: &str = "key.pem";
const PUBLIC_FILE: &str = "public.pem";
/// What stands before the 32 bytes of a private key in PKCS #8 (RFC 8410, 7).
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// What stands before the 32 bytes of a public key in SPKI (RFC 8410, 4).
const SPKI: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const KEY_LEN: usize = 32;

/// What others verify our signatures with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_LEN]);

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
}

/// The key pair.
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
    /// The key pair beside the database in `data`; made there, if there was none yet.
    ///
    /// # Errors
    /// [`Error::State`] when the private key is gone or unreadable; it says what to do.
    pub fn open(data: &Path) -> Result<Self> {
        let folder = data.join(FOLDER);
        let (file, known) = (folder.join(KEY_FILE), published(data)?);
        let seed = match (read_if_there(&file)?, known) {
            (Some(text), _) => parse(&text, PKCS8).ok_or_else(|| unusable(&file))?,
            (None, None) => {
                let seed = secret::random()?;
                fs::create_dir_all(&folder).doing("make the folder of the signing key")?;
                write(&file, "PRIVATE KEY", PKCS8, &seed)?;
                seed
            }
            (None, Some(_)) => {
                return Err(Error::State(format!(
                    "{} is missing: restore it; if it is lost, delete {} to make a new one, whose public \
                     half every site must then be given anew",
                    file.display(),
                    folder.display(),
                )));
            }
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok();
        let pair = pair.ok_or_else(|| unusable(&file))?;
        let bytes = pair.public_key().as_ref().try_into();
        let public = PublicKey(bytes.doing("take the public half of the signing key")?);
        if known != Some(public) {
            write(&folder.join(PUBLIC_FILE), "PUBLIC KEY", SPKI, &public.0)?;
        }
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
        std::iter::once(("Content-Digest", digest))
            .chain(signature)
            .collect()
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

/// The public key beside the database in `data`, if a server has made one.
///
/// # Errors
/// When its file cannot be read.
pub fn published(data: &Path) -> Result<Option<PublicKey>> {
    let file = data.join(FOLDER).join(PUBLIC_FILE);
    let text = read_if_there(&file)?;
    let parsed = |text: String| {
        parse(&text, SPKI)
            .map(PublicKey)
            .ok_or_else(|| unusable(&file))
    };
    text.map(parsed).transpose()
}

fn unusable(file: &Path) -> Error {
    let name = file.display();
    Error::State(format!("{name} is no Ed25519 key in PEM: restore it"))
}

fn read_if_there(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("read the signing key"),
    }
}

/// The 32 bytes behind `prefix` in a PEM block.
fn parse(text: &str, prefix: &[u8]) -> Option<[u8; KEY_LEN]> {
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    let bytes = STANDARD.decode(lines.collect::<String>().trim()).ok()?;
    bytes.strip_prefix(prefix)?.try_into().ok()
}

/// Writes a whole file that only its owner may read, or none.
fn write(path: &Path, label: &str, prefix: &[u8], key: &[u8; KEY_LEN]) -> Result<()> {
    let body = STANDARD.encode([prefix, key].concat());
    let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    let draft: PathBuf = path.with_extension("new");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .and_then(|()| fs::rename(&draft, path));
    written.doing("write the signing key")
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_key_pair_is_made_once_and_a_lost_one_is_not_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().unwrap();
        assert_eq!(published(data.path()).unwrap(), None);
        let first = Keys::open(data.path()).unwrap().public();
        assert_eq!(Keys::open(data.path()).unwrap().public(), first);
        assert_eq!(published(data.path()).unwrap(), Some(first));
        let (key, public) = (
            data.path().join("signing/key.pem"),
            data.path().join("signing/public.pem"),
        );
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&key), mode(&public)), (0o600, 0o600));
        // The public half follows from the private one.
        fs::remove_file(&public).unwrap();
        assert_eq!(Keys::open(data.path()).unwrap().public(), first);
        assert_eq!(published(data.path()).unwrap(), Some(first));
        let kept = fs::read(&key).unwrap();
        fs::write(&key, "nonsense").unwrap();
        assert!(matches!(Keys::open(data.path()), Err(Error::State(_))));
        fs::remove_file(&key).unwrap();
        let told = Keys::open(data.path()).unwrap_err().to_string();
        assert!(told.contains("key.pem is missing: restore it"), "{told}");
        fs::write(&key, kept).unwrap();
        assert_eq!(Keys::open(data.path()).unwrap().public(), first);
    }

    #[test]
    fn a_signature_is_over_every_component_and_parameter() {
        let data = tempfile::tempdir().unwrap();
        let keys = Keys::open(data.path()).unwrap();
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
        let public =
            UnparsedPublicKey::new(&ED25519, STANDARD.decode(keys.public().base64()).unwrap());
        assert!(public.verify(base.as_bytes(), &signature).is_ok());
        assert!(
            public
                .verify(base.replace("POST", "GET").as_bytes(), &signature)
                .is_err()
        );
    }

    #[test]
    fn a_digest_is_that_of_the_standard() {
        // RFC 9530, appendix B.1 has it for the SHA-256 of {"hello": "world"} and a line feed.
        let expected = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert_eq!(content_digest(b"{\"hello\": \"world\"}\n"), expected);
    }
}
