//! Encryption with a passphrase, in the format of [age](https://age-encryption.org/v1), so that a backup can be
//! decrypted without this program: a random file key, wrapped with a key that scrypt derives from the passphrase,
//! encrypts chunks of 64 KiB with `ChaCha20-Poly1305`, each numbered and the last one marked.
//!
//! Implemented here on `ring` and `scrypt`: the crate `age` would add 86 more crates for keys, plugins and
//! translations that are not needed. The tests check both directions against the real tool.

use std::io::{Error, ErrorKind, Read, Result, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};

use crate::security::secret::{self, Secret};

/// The first bytes of a file in this format.
pub const MAGIC: &[u8] = b"age-encryption.org/v1\n";
const LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
/// The base-2 logarithm of scrypt's cost: 64 MiB for a moment, as for a password of the panel. The tool chooses
/// 18, which is 256 MiB.
const WORK: u8 = 16;
/// The highest cost that is accepted: it needs 1 GiB of memory.
const WORK_MAX: u8 = 20;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
/// Maximum length of a line of the header, in bytes.
const LINE_MAX: usize = 128;

/// Encrypts what is written to it. The output is complete only after [`Encryptor::finish`].
pub struct Encryptor<W: Write> {
    out: W,
    stream: Stream,
    chunk: Vec<u8>,
}

/// Decrypts its input as it is read.
pub struct Decryptor<R: Read> {
    input: R,
    stream: Stream,
    /// The current chunk, decrypted, and how much of it was read.
    chunk: Vec<u8>,
    read: usize,
    /// The first byte of the next chunk; empty at the last chunk.
    ahead: Vec<u8>,
    /// That of the current chunk.
    place: Place,
}

/// A chunk's place in the file, which its nonce marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Inner,
    Last,
}

/// The key of the chunks, and the number of the next chunk.
struct Stream {
    key: LessSafeKey,
    next: u64,
}

impl Stream {
    fn new(file_key: &[u8], nonce: &[u8]) -> Result<Self> {
        let key = derived(file_key, nonce, b"payload")?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(broken)?;
        let key = LessSafeKey::new(key);
        Ok(Self { key, next: 0 })
    }

    /// Eleven bytes of chunk number, and one that marks the last chunk.
    fn nonce(&mut self, place: Place) -> Nonce {
        let mut bytes = [0; 12];
        if let Some(number) = bytes.get_mut(3..11) {
            number.copy_from_slice(&self.next.to_be_bytes());
        }
        if let Some(mark) = bytes.last_mut() {
            *mark = u8::from(place == Place::Last);
        }
        self.next = self.next.saturating_add(1);
        Nonce::assume_unique_for_key(bytes)
    }

    fn seal(&mut self, chunk: &mut Vec<u8>, place: Place) -> Result<()> {
        let nonce = self.nonce(place);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, Aad::empty(), chunk);
        sealed.map_err(broken)
    }

    fn open(&mut self, chunk: &mut Vec<u8>, place: Place) -> Result<()> {
        let nonce = self.nonce(place);
        let opened = self.key.open_in_place(nonce, Aad::empty(), chunk);
        let Ok(opened) = opened else {
            return Err(damaged("a part of it was altered or is cut off"));
        };
        let length = opened.len();
        chunk.truncate(length);
        Ok(())
    }
}

impl<W: Write> Encryptor<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn begin(mut out: W, passphrase: &Secret<String>) -> Result<Self> {
        let file_key: [u8; 16] = random()?;
        let (salt, nonce): ([u8; 16], [u8; 16]) = (random()?, random()?);
        let mut body = file_key.to_vec();
        let wrapping = wrapping_key(passphrase, &salt, WORK)?;
        let zero = Nonce::assume_unique_for_key([0; 12]);
        wrapping
            .seal_in_place_append_tag(zero, Aad::empty(), &mut body)
            .map_err(broken)?;
        let (salt, body) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(body));
        let mut header = MAGIC.to_vec();
        header.extend(format!("-> scrypt {salt} {WORK}\n{body}\n---").bytes());
        let mac = STANDARD_NO_PAD.encode(mac(&file_key, &header)?);
        header.extend(format!(" {mac}\n").bytes());
        header.extend(nonce);
        out.write_all(&header)?;
        let (stream, chunk) = (Stream::new(&file_key, &nonce)?, Vec::new());
        Ok(Self { out, stream, chunk })
    }

    /// Writes the last chunk.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn finish(mut self) -> Result<W> {
        self.stream.seal(&mut self.chunk, Place::Last)?;
        self.out.write_all(&self.chunk)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // A full chunk is written only when another byte follows: the last chunk must be marked, and may be empty
        // only if everything is.
        if self.chunk.len() == CHUNK {
            self.stream.seal(&mut self.chunk, Place::Inner)?;
            self.out.write_all(&self.chunk)?;
            self.chunk.clear();
        }
        let length = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend(bytes.iter().take(length));
        Ok(length)
    }

    fn flush(&mut self) -> Result<()> {
        // Nothing is written: an incomplete chunk would count as the last one.
        Ok(())
    }
}

impl<R: Read> Decryptor<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for a wrong passphrase, [`ErrorKind::InvalidData`] if it is no such file.
    pub fn begin(mut input: R, passphrase: &Secret<String>) -> Result<Self> {
        let mut header = Header::read(&mut input)?;
        let file_key = header.file_key(passphrase)?;
        let mut nonce = [0; 16];
        input.read_exact(&mut nonce)?;
        let stream = Stream::new(file_key, &nonce)?;
        let mut opened = Self {
            input,
            stream,
            chunk: Vec::new(),
            read: 0,
            ahead: Vec::new(),
            place: Place::Inner,
        };
        opened.ahead = opened.fetch(1)?;
        Ok(opened)
    }

    /// Reads `length` bytes, or fewer at the end of the input.
    fn fetch(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        let limit = u64::try_from(length).unwrap_or(u64::MAX);
        self.input.by_ref().take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn next_chunk(&mut self) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.ahead);
        chunk.extend(self.fetch(CHUNK + TAG - chunk.len())?);
        self.ahead = self.fetch(1)?;
        self.place = if self.ahead.is_empty() {
            Place::Last
        } else {
            Place::Inner
        };
        self.stream.open(&mut chunk, self.place)?;
        if chunk.is_empty() && self.stream.next > 1 {
            return Err(damaged("it has an extra chunk at its end"));
        }
        (self.chunk, self.read) = (chunk, 0);
        Ok(())
    }
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        while self.read == self.chunk.len() && self.place == Place::Inner {
            self.next_chunk()?;
        }
        let left = self.chunk.get(self.read..).unwrap_or_default();
        let length = left.len().min(into.len());
        for (to, from) in into.iter_mut().zip(left) {
            *to = *from;
        }
        self.read += length;
        Ok(length)
    }
}

/// The header of an encrypted file, up to its MAC.
struct Header {
    salt: Vec<u8>,
    /// The base-2 logarithm of scrypt's cost.
    work: u8,
    /// The wrapped file key.
    body: Vec<u8>,
    /// The text that the MAC covers.
    covered: Vec<u8>,
    mac: Vec<u8>,
}

impl Header {
    fn read(input: &mut impl Read) -> Result<Self> {
        let mut header = Vec::new();
        let mut line = |header: &mut Vec<u8>| line(input, header);
        if line(&mut header)?.as_bytes() != MAGIC.trim_ascii_end() {
            return Err(damaged("it is not encrypted by age"));
        }
        let stanza = line(&mut header)?;
        let words: Vec<&str> = stanza.split(' ').collect();
        let ["->", "scrypt", salt, work] = words[..] else {
            return Err(damaged(
                "it is encrypted with a key, not with a passphrase: decrypt it with `age --decrypt` first",
            ));
        };
        let work: u8 = work.parse().map_err(broken)?;
        if !(1..=WORK_MAX).contains(&work) {
            return Err(damaged("its passphrase takes too much memory to check"));
        }
        let salt = STANDARD_NO_PAD.decode(salt).map_err(broken)?;
        let body = STANDARD_NO_PAD.decode(line(&mut header)?).map_err(broken)?;
        let end = line(&mut header)?;
        let mac = end.strip_prefix("--- ");
        let mac = mac.ok_or_else(|| damaged("its header is not that of a passphrase"))?;
        let mac = STANDARD_NO_PAD.decode(mac).map_err(broken)?;
        let covered = header.len().saturating_sub(end.len() + 1 - "---".len());
        header.truncate(covered);
        Ok(Self {
            salt,
            work,
            body,
            covered: header,
            mac,
        })
    }

    /// Unwraps the file key, and checks the header with it.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for a wrong passphrase, [`ErrorKind::InvalidData`] if the header was altered.
    fn file_key(&mut self, passphrase: &Secret<String>) -> Result<&[u8]> {
        let zero = Nonce::assume_unique_for_key([0; 12]);
        let wrapping = wrapping_key(passphrase, &self.salt, self.work)?;
        let file_key = wrapping.open_in_place(zero, Aad::empty(), &mut self.body);
        let Ok(file_key) = file_key else {
            return Err(ErrorKind::PermissionDenied.into());
        };
        if !secret::constant_time_eq(&mac(file_key, &self.covered)?, &self.mac) {
            return Err(damaged("its header was altered"));
        }
        Ok(file_key)
    }
}

/// Reads a line of the header, without its line end, and appends it with its line end to `header`.
fn line(input: &mut impl Read, header: &mut Vec<u8>) -> Result<String> {
    let start = header.len();
    loop {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        header.extend(byte);
        if byte == [b'\n'] {
            break;
        }
        if header.len() - start > LINE_MAX {
            return Err(damaged("its header is too long"));
        }
    }
    let line = header.get(start..header.len() - 1).unwrap_or_default();
    String::from_utf8(line.to_vec()).map_err(broken)
}

fn wrapping_key(passphrase: &Secret<String>, salt: &[u8], work: u8) -> Result<LessSafeKey> {
    let salt = [LABEL, salt].concat();
    let mut key = [0; 32];
    let params = scrypt::Params::new(work, 8, 1).map_err(broken)?;
    let passphrase = passphrase.reveal().as_bytes();
    scrypt::scrypt(passphrase, &salt, &params, &mut key).map_err(broken)?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(broken)?;
    Ok(LessSafeKey::new(key))
}

fn derived(file_key: &[u8], salt: &[u8], label: &[u8]) -> Result<[u8; 32]> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, salt);
    let (label, mut key) = ([label], [0; 32]);
    let extracted = salt.extract(file_key);
    let extracted = extracted
        .expand(&label, hkdf::HKDF_SHA256)
        .map_err(broken)?;
    extracted.fill(&mut key).map_err(broken)?;
    Ok(key)
}

/// The MAC of the header: HMAC-SHA256 of everything up to and including the three hyphens.
fn mac(file_key: &[u8], header: &[u8]) -> Result<Vec<u8>> {
    let key = derived(file_key, b"", b"header")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    Ok(hmac::sign(&key, header).as_ref().to_vec())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    secret::random().map_err(Error::other)
}

fn damaged(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::InvalidData,
        format!("its header is damaged: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn sealed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Encryptor::begin(Vec::new(), &secret("a passphrase")).unwrap();
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn opened(bytes: &[u8], passphrase: &str) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        Decryptor::begin(bytes, &secret(passphrase))?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn encrypted_data_of_every_length_is_decrypted_only_with_its_passphrase() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK] {
            let text: Vec<u8> = (0..length)
                .map(|n| u8::try_from(n % 251).unwrap())
                .collect();
            let file = sealed(&text);
            assert!(opened(&file, "a passphrase").unwrap() == text, "{length}");
        }
        let error = opened(&sealed(b"x"), "another").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn an_altered_truncated_or_extended_file_is_not_decrypted() {
        let text = vec![7; CHUNK + 100];
        let file = sealed(&text);
        let header = file.windows(4).position(|at| at == b"--- ").unwrap() + 48;
        // In the salt, in the key, in the header's end, in the nonce, in each chunk.
        for at in [
            35,
            70,
            header - 10,
            header + 3,
            header + 100,
            file.len() - 1,
        ] {
            let mut file = file.clone();
            file[at] ^= 1;
            assert!(opened(&file, "a passphrase").is_err(), "{at}");
        }
        // Whole chunks are missing, part of a chunk is missing, or a byte was added.
        for length in [header + 16, header + 16 + CHUNK + TAG, file.len() - 1, 10] {
            assert!(opened(&file[..length], "a passphrase").is_err(), "{length}");
        }
        let longer = [&file[..], b"x"].concat();
        assert!(opened(&longer, "a passphrase").is_err());
    }
}
