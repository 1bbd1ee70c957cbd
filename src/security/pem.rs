//! Reads certificates and keys from the file formats that certificate authorities and other programs produce. A format
//! that cannot be used is rejected with a message that names it and says how to convert it.

use std::io::ErrorKind;
use std::path::{Display, Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Maximum size of a file: a chain with its key has a few thousand bytes.
const LEN_MAX: u64 = 1024 * 1024;
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
/// The identifier of a DER file's format is within this many bytes.
const PREFIX: usize = 48;
/// Object identifiers in DER: encryption with a passphrase (PKCS#5, PKCS#12), and below, signed data of PKCS#7.
const PASSPHRASES: [&[u8]; 2] = [
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x05",
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01",
];
const SIGNED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const JAVA_MAGIC: &[u8] = b"\xfe\xed\xfe\xed";

/// Content that cannot be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// The right content, in a format that another program converts.
    Convertible(Format),
    Request,
    PublicKey,
    Damaged,
    /// Base64 without BEGIN and END lines.
    Bare,
}

/// A format of certificates and keys that this program does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Encrypted,
    Pkcs12,
    Pkcs7,
    OpenSsh,
    Putty,
    JavaKeyStore,
    Trusted,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Contents {
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<PrivateKeyDer<'static>>,
    others: Vec<Other>,
    empty: bool,
}

/// All certificates in the file at `path`, in their order.
///
/// # Errors
/// If there are none, the message to append to the file's name: what the file is instead, and what to do.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let contents = Contents::read(path)?;
    if contents.certificates.is_empty() || contents.others.contains(&Other::Damaged) {
        return Err(contents.instead_of_a_certificate(path));
    }
    Ok(contents.certificates)
}

/// All private keys in the file at `path`.
///
/// # Errors
/// As [`certificates`].
pub fn keys(path: &Path) -> Result<Vec<PrivateKeyDer<'static>>, String> {
    let contents = Contents::read(path)?;
    if contents.keys.is_empty() {
        return Err(contents.instead_of_a_key(path));
    }
    Ok(contents.keys)
}

impl Contents {
    fn read(path: &Path) -> Result<Self, String> {
        let data = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
        if !data.is_file() {
            return Err("is not a file: name the file itself".to_owned());
        }
        if data.len() > LEN_MAX {
            return Err("is too large for certificates and keys: name another file".to_owned());
        }
        let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        if bytes.trim_ascii().is_empty() {
            return Self {
                empty: true,
                ..Self::default()
            };
        }
        let mut contents = Self::default();
        match text_of(bytes) {
            Some(text) if text.contains("-----BEGIN ") => contents.take_text(&text),
            Some(text) if text.starts_with("PuTTY-User-Key-File") => {
                contents.others.push(Other::Convertible(Format::Putty));
            }
            Some(text) if is_bare(&text) => contents.others.push(Other::Bare),
            _ => contents.take_der(bytes),
        }
        contents
    }

    fn take_text(&mut self, text: &str) {
        let Ok(sections) = pem::parse_many(text) else {
            self.others.push(Other::Damaged);
            return;
        };
        // The parser skips a section without an end.
        if sections.len() < text.matches("-----BEGIN ").count() {
            self.others.push(Other::Damaged);
        }
        for section in sections {
            let encrypted = section
                .headers()
                .get("Proc-Type")
                .is_some_and(|kind| kind.contains("ENCRYPTED"));
            if encrypted {
                self.others.push(Other::Convertible(Format::Encrypted));
                continue;
            }
            let label = section.tag().to_owned();
            self.take_section(&label, section.into_contents());
        }
    }

    fn take_section(&mut self, label: &str, der: Vec<u8>) {
        let other = match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => {
                if x509_parser::parse_x509_certificate(&der).is_ok() {
                    self.certificates.push(der.into());
                    return;
                }
                Other::Damaged
            }
            "PRIVATE KEY" => return self.keys.push(PrivateKeyDer::Pkcs8(der.into())),
            "RSA PRIVATE KEY" => return self.keys.push(PrivateKeyDer::Pkcs1(der.into())),
            "EC PRIVATE KEY" => return self.keys.push(PrivateKeyDer::Sec1(der.into())),
            "ENCRYPTED PRIVATE KEY" => Other::Convertible(Format::Encrypted),
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Other::Request,
            "PUBLIC KEY" | "RSA PUBLIC KEY" | "EC PUBLIC KEY" => Other::PublicKey,
            "PKCS7" | "CMS" => Other::Convertible(Format::Pkcs7),
            "PKCS12" => Other::Convertible(Format::Pkcs12),
            "OPENSSH PRIVATE KEY" => Other::Convertible(Format::OpenSsh),
            "TRUSTED CERTIFICATE" => Other::Convertible(Format::Trusted),
            // Key parameters, revocation lists and others do no harm.
            _ => return,
        };
        self.others.push(other);
    }

    fn take_der(&mut self, bytes: &[u8]) {
        let prefix = bytes.get(..PREFIX).unwrap_or(bytes);
        let contains = |oid: &[u8]| prefix.windows(oid.len()).any(|part| part == oid);
        if x509_parser::parse_x509_certificate(bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
            self.certificates.push(bytes.to_vec().into());
        } else if PASSPHRASES.iter().any(|oid| contains(oid)) {
            self.others.push(Other::Convertible(Format::Encrypted));
        } else if contains(SIGNED_DATA) {
            self.others.push(Other::Convertible(Format::Pkcs7));
        } else if begins_with_version_3(bytes) {
            self.others.push(Other::Convertible(Format::Pkcs12));
        } else if bytes.starts_with(JAVA_MAGIC) {
            self.others.push(Other::Convertible(Format::JavaKeyStore));
        } else if X509CertificationRequest::from_der(bytes).is_ok() {
            self.others.push(Other::Request);
        } else if SubjectPublicKeyInfo::from_der(bytes).is_ok() {
            self.others.push(Other::PublicKey);
        } else if let Ok(key) = PrivateKeyDer::try_from(bytes) {
            self.keys.push(key.clone_key());
        }
    }

    fn instead_of_a_certificate(&self, path: &Path) -> String {
        if self.certificates.is_empty() && !self.keys.is_empty() {
            return "holds a private key and no certificate: if the settings for certificate and key are \
                    swapped, swap them back"
                .to_owned();
        }
        self.instead(path, "certificate")
    }

    fn instead_of_a_key(&self, path: &Path) -> String {
        if self.others.is_empty() && !self.certificates.is_empty() {
            return "holds a certificate and no private key: name the key's file; if the settings for \
                    certificate and key are swapped, swap them back"
                .to_owned();
        }
        self.instead(path, "private key")
    }

    /// What the file is instead of what is `wanted`, and how to convert it.
    fn instead(&self, path: &Path, wanted: &str) -> String {
        let file = path.display();
        if self.empty {
            return "is empty: put the PEM text into it".to_owned();
        }
        let Some(other) = self.others.first() else {
            return format!(
                "holds no {wanted}: it must be PEM, with a line -----BEGIN …-----, or DER"
            );
        };
        match other {
            Other::Convertible(format) => format.how_to_convert(file),
            Other::Request => format!(
                "is a certificate request, which you send to an authority: a {wanted} is needed, and the \
                 certificate is what the authority returns"
            ),
            Other::PublicKey => format!("holds a public key: a {wanted} is needed"),
            Other::Damaged => {
                "is damaged: a part is cut off or is not base64; copy the whole file again, from \
                               -----BEGIN to -----END…-----"
                    .to_owned()
            }
            Other::Bare => {
                "is base64 without BEGIN and END lines: put -----BEGIN CERTIFICATE----- (for a key: \
                            -----BEGIN PRIVATE KEY-----) before it and the same with END after it"
                    .to_owned()
            }
        }
    }
}

impl Format {
    /// The format of `file`, and how to convert it.
    fn how_to_convert(self, file: Display<'_>) -> String {
        match self {
            Self::Encrypted => format!(
                "holds a key with a passphrase, which cannot be entered when the server starts: remove it with \
                 `openssl pkey -in {file} -out plain.pem`, and let only the server's user read that file"
            ),
            Self::Pkcs12 => format!(
                "is PKCS#12 (.p12, .pfx): split it into two files with `openssl pkcs12 -in {file} -nokeys -out \
                 chain.pem` and `openssl pkcs12 -in {file} -nocerts -nodes -out key.pem`"
            ),
            Self::Pkcs7 => format!(
                "is PKCS#7 (.p7b), which holds certificates and never a key: convert it to PEM with `openssl \
                 pkcs7 -in {file} -print_certs -out chain.pem` (with `-inform DER` if that finds nothing)"
            ),
            Self::OpenSsh => format!(
                "is an OpenSSH key: convert a copy to PEM with `ssh-keygen -p -N '' -m PEM -f {file}`"
            ),
            Self::Putty => {
                "is a PuTTY key: export it there as an OpenSSH key, then convert it to PEM with \
                             `ssh-keygen -p -N '' -m PEM -f FILE`"
                    .to_owned()
            }
            Self::JavaKeyStore => format!(
                "is a Java key store: run `keytool -importkeystore -srckeystore {file} -destkeystore store.p12 \
                 -deststoretype PKCS12`, then `openssl pkcs12 -in store.p12 -nodes -out both.pem`"
            ),
            Self::Trusted => format!(
                "is a certificate with OpenSSL trust settings: remove them with `openssl x509 -in {file} -out \
                 chain.pem`"
            ),
        }
    }
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "does not exist: correct the setting, or put the file there".to_owned(),
        ErrorKind::PermissionDenied => {
            "cannot be read by the user that runs this: give that user permission to read it, and to enter \
             the folders above it"
                .to_owned()
        }
        _ => format!("cannot be read ({error})"),
    }
}

/// The text of a file, normalized: without byte order mark, from UTF-8 or UTF-16, with `\n` as line ends, without
/// indentation. `None` if it is not text.
fn text_of(bytes: &[u8]) -> Option<String> {
    let unit = |pair: &[u8], order: fn([u8; 2]) -> u16| match *pair {
        [first, second] => order([first, second]),
        _ => u16::from(b' '),
    };
    let wide = |rest: &[u8], order| {
        let units: Vec<u16> = rest.chunks(2).map(|pair| unit(pair, order)).collect();
        String::from_utf16(&units).ok()
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] if !bytes.starts_with(JAVA_MAGIC) => {
            wide(rest, u16::from_be_bytes)?
        }
        // Text before the PEM sections may be in any encoding.
        _ => String::from_utf8_lossy(bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes)).into_owned(),
    };
    // `\r\n` must not become two line ends: an empty line would end the headers of a section.
    let text = text.replace("\r\n", "\n");
    let lines = text.split(['\r', '\n']).map(str::trim);
    let lines: Vec<&str> = lines.collect();
    Some(lines.join("\n"))
}

/// Whether this is nothing but base64 of DER.
fn is_bare(text: &str) -> bool {
    let mut bytes = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    text.starts_with("MI")
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// Whether this is a DER sequence that starts with the number 3: a PFX (RFC 7292, 4).
fn begins_with_version_3(bytes: &[u8]) -> bool {
    let inner = match *bytes {
        [0x30, length, ..] if length >= 0x80 => bytes.get(2 + usize::from(length & 0x7f)..),
        [0x30, ..] => bytes.get(2..),
        _ => None,
    };
    inner.is_some_and(|inner| inner.starts_with(b"\x02\x01\x03"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    fn pair() -> (String, String, Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let made = params.self_signed(&key).unwrap();
        (
            made.pem(),
            key.serialize_pem(),
            made.der().to_vec(),
            key.serialize_der(),
        )
    }

    /// How many certificates and keys are found.
    fn found(bytes: &[u8]) -> (usize, usize) {
        let contents = Contents::of(bytes);
        (contents.certificates.len(), contents.keys.len())
    }

    #[test]
    fn pem_is_read_in_every_encoding_and_with_text_around_it() {
        let (certificate, key, certificate_der, key_der) = pair();
        let wide = |order: fn(u16) -> [u8; 2], mark: [u8; 2]| {
            let units = certificate.encode_utf16().flat_map(order);
            mark.into_iter().chain(units).collect::<Vec<u8>>()
        };
        let marked = [UTF8_MARK, certificate.as_bytes()].concat();
        let bag = format!("Bag Attributes\n    friendlyName: Größe\nsubject=CN = x\n{certificate}");
        let latin = [b"Gr\xf6\xdfe\n", certificate.as_bytes()].concat();
        let indented = certificate.replace('\n', "\n    ");
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for (what, bytes, expected) in [
            ("as it is", certificate.clone().into_bytes(), (1, 0)),
            ("a byte order mark", marked, (1, 0)),
            (
                "UTF-16, little end first",
                wide(u16::to_le_bytes, [0xff, 0xfe]),
                (1, 0),
            ),
            (
                "UTF-16, big end first",
                wide(u16::to_be_bytes, [0xfe, 0xff]),
                (1, 0),
            ),
            (
                "CR and LF",
                certificate.replace('\n', "\r\n").into_bytes(),
                (1, 0),
            ),
            ("CR", certificate.replace('\n', "\r").into_bytes(), (1, 0)),
            ("text before it", bag.into_bytes(), (1, 0)),
            ("text in another encoding", latin, (1, 0)),
            ("indented", format!("    {indented}").into_bytes(), (1, 0)),
            (
                "an older label",
                certificate
                    .replace("CERTIFICATE", "X509 CERTIFICATE")
                    .into_bytes(),
                (1, 0),
            ),
            (
                "both in one file",
                format!("{key}{certificate}").into_bytes(),
                (1, 1),
            ),
            (
                "parameters before the key",
                format!("{parameters}{key}").into_bytes(),
                (0, 1),
            ),
            ("a certificate in DER", certificate_der, (1, 0)),
            ("a key in DER", key_der, (0, 1)),
        ] {
            assert_eq!(found(&bytes), expected, "{what}");
        }
    }

    #[test]
    fn the_message_names_a_format_that_cannot_be_used() {
        let (certificate, key, certificate_der, _) = pair();
        let label = |label: &str| key.replace("PRIVATE KEY", label).into_bytes();
        let half = certificate.get(..certificate.len() / 2).unwrap();
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        let bare: String = certificate
            .lines()
            .filter(|line| !line.contains("---"))
            .collect();
        let request = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let signer = KeyPair::generate().unwrap();
        let request = request.serialize_request(&signer).unwrap();
        let public = signer.subject_public_key_info();
        for (bytes, word) in [
            (label("ENCRYPTED PRIVATE KEY"), "passphrase"),
            (legacy.as_bytes().to_vec(), "passphrase"),
            (label("OPENSSH PRIVATE KEY"), "OpenSSH"),
            (label("PUBLIC KEY"), "public key"),
            (label("PKCS7"), "PKCS#7"),
            (label("TRUSTED CERTIFICATE"), "openssl x509"),
            (label("DH PARAMETERS"), "holds no private key"),
            (b"PuTTY-User-Key-File-3: ssh-ed25519\n".to_vec(), "PuTTY"),
            (b"\xfe\xed\xfe\xed\0\0\0\x02".to_vec(), "Java"),
            (b"\x30\x82\x10\0\x02\x01\x03\x30".to_vec(), "PKCS#12"),
            (b"\x30\x80\x02\x01\x03\x30".to_vec(), "PKCS#12"),
            (request.pem().unwrap().into_bytes(), "certificate request"),
            (request.der().to_vec(), "certificate request"),
            (public, "public key"),
            (bare.into_bytes(), "base64 without BEGIN"),
            (half.as_bytes().to_vec(), "damaged"),
            (certificate_der, "holds a certificate and no private key"),
            (Vec::new(), "empty"),
            (b" \r\n".to_vec(), "empty"),
            (b"no certificate".to_vec(), "holds no private key"),
            (vec![0x30; 40], "holds no private key"),
        ] {
            let contents = Contents::of(&bytes);
            assert!(contents.keys.is_empty(), "{word}");
            let message = contents.instead_of_a_key(Path::new("key.pem"));
            assert!(message.contains(word), "{word}: {message}");
            assert_eq!(message.lines().count(), 1);
        }
        let swapped = Contents::of(key.as_bytes()).instead_of_a_certificate(Path::new("x"));
        assert!(swapped.contains("swapped"), "{swapped}");
    }

    #[test]
    fn the_message_says_why_a_file_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            certificates(folder.path())
                .unwrap_err()
                .contains("not a file")
        );
        let missing = certificates(&folder.path().join("x.pem")).unwrap_err();
        assert!(missing.contains("does not exist"), "{missing}");
    }
}
