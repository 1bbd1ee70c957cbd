//! Encryption by a passphrase, in the format of [age](https://age-encryption.org/v1), so that a copy can be opened
//! without this program: a random file key, wrapped by a key that scrypt makes of the passphrase, encrypts chunks of
//! 64 KiB with `ChaCha20-Poly1305`, each numbered and the last one marked.
//!
//! Written here on top of `ring` and `scrypt`: the crate `age` does the same and 86 crates more, for keys, plugins and
//! translations that nothing here uses. The tests hold it against the real tool, in both directions.

use std::io::{Error, ErrorKind, Read, Result, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};

use crate::security::secret::{self, Secret};

/// What a file in this format begins with.
pub const MAGIC: &[u8] = b"age-encryption.org/v1\n";
const LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
/// The base-2 logarithm of scrypt's cost: 64 MiB for a moment, as much as a password takes in the panel. The tool
/// chooses 18, which is 256 MiB.
const WORK: u8 = 16;
/// The dearest file that is opened: a gigabyte.
const WORK_MAX: u8 = 20;
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
/// Longest line of a header that is read.
const LINE_MAX: usize = 128;

/// Encrypts what is written into it. What was written is whole only after [`Sealed::finish`].
pub struct Sealed<W: Write> {
    out: W,
    stream: Stream,
    chunk: Vec<u8>,
}

/// Decrypts what is read from it.
pub struct Opened<R: Read> {
    input: R,
    stream: Stream,
    /// What is decrypted, and how much of it was read.
    chunk: Vec<u8>,
    read: usize,
    /// The first bytes of the next chunk: that there are none marks the last one.
    ahead: Vec<u8>,
    last: bool,
}

/// The key of the chunks, and the number of the next one.
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

    /// Eleven bytes of number, one that marks the last chunk.
    fn nonce(&mut self, last: bool) -> Nonce {
        let mut bytes = [0; 12];
        if let Some(number) = bytes.get_mut(3..11) {
            number.copy_from_slice(&self.next.to_be_bytes());
        }
        if let Some(mark) = bytes.last_mut() {
            *mark = u8::from(last);
        }
        self.next = self.next.saturating_add(1);
        Nonce::assume_unique_for_key(bytes)
    }

    fn seal(&mut self, chunk: &mut Vec<u8>, last: bool) -> Result<()> {
        let nonce = self.nonce(last);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, Aad::empty(), chunk);
        sealed.map_err(broken)
    }

    fn open(&mut self, chunk: &mut Vec<u8>, last: bool) -> Result<()> {
        let nonce = self.nonce(last);
        let opened = self.key.open_in_place(nonce, Aad::empty(), chunk);
        let Ok(opened) = opened else {
            return Err(damaged("a part of it was altered or is cut off"));
        };
        let length = opened.len();
        chunk.truncate(length);
        Ok(())
    }
}

impl<W: Write> Sealed<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When `out` does not take it.
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

    /// Writes the end.
    ///
    /// # Errors
    /// When the output does not take it.
    pub fn finish(mut self) -> Result<W> {
        self.stream.seal(&mut self.chunk, true)?;
        self.out.write_all(&self.chunk)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // Only before another byte: the last chunk has to be marked, and is empty only where everything is.
        if self.chunk.len() == CHUNK {
            self.stream.seal(&mut self.chunk, false)?;
            self.out.write_all(&self.chunk)?;
            self.chunk.clear();
        }
        let length = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend(bytes.iter().take(length));
        Ok(length)
    }

    fn flush(&mut self) -> Result<()> {
        // A chunk that is not full would be taken for the last one.
        Ok(())
    }
}

impl<R: Read> Opened<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for another passphrase, [`ErrorKind::InvalidData`] for what is no such file.
    pub fn begin(mut input: R, passphrase: &Secret<String>) -> Result<Self> {
        let mut header = Vec::new();
        let mut line = |header: &mut Vec<u8>| line(&mut input, header);
        if line(&mut header)?.as_bytes() != MAGIC.trim_ascii_end() {
            return Err(damaged("it is not encrypted by age"));
        }
        let stanza = line(&mut header)?;
        let words: Vec<&str> = stanza.split(' ').collect();
        let ["->", "scrypt", salt, work] = words[..] else {
            return Err(damaged(
                "it is encrypted for a key, not by a passphrase: decrypt it with `age --decrypt` first",
            ));
        };
        let work: u8 = work.parse().map_err(broken)?;
        if !(1..=WORK_MAX).contains(&work) {
            return Err(damaged("its passphrase takes too much memory to check"));
        }
        let salt = STANDARD_NO_PAD.decode(salt).map_err(broken)?;
        let mut body = STANDARD_NO_PAD.decode(line(&mut header)?).map_err(broken)?;
        let end = line(&mut header)?;
        let told = end.strip_prefix("--- ");
        let told = told.ok_or_else(|| damaged("its header is none of a passphrase"))?;
        let told = STANDARD_NO_PAD.decode(told).map_err(broken)?;
        let zero = Nonce::assume_unique_for_key([0; 12]);
        let wrapping = wrapping_key(passphrase, &salt, work)?;
        let file_key = wrapping.open_in_place(zero, Aad::empty(), &mut body);
        let Ok(file_key) = file_key else {
            return Err(ErrorKind::PermissionDenied.into());
        };
        let covered = header.len().saturating_sub(end.len() + 1 - "---".len());
        let covered = header.get(..covered).unwrap_or_default();
        if !secret::same(&mac(file_key, covered)?, &told) {
            return Err(damaged("its header was altered"));
        }
        let mut nonce = [0; 16];
        input.read_exact(&mut nonce)?;
        let stream = Stream::new(file_key, &nonce)?;
        let mut opened = Self {
            input,
            stream,
            chunk: Vec::new(),
            read: 0,
            ahead: Vec::new(),
            last: false,
        };
        opened.ahead = opened.fetch(1)?;
        Ok(opened)
    }

    /// So many bytes, or as many as there are.
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
        self.last = self.ahead.is_empty();
        self.stream.open(&mut chunk, self.last)?;
        if chunk.is_empty() && self.stream.next > 1 {
            return Err(damaged("it has an end too many"));
        }
        (self.chunk, self.read) = (chunk, 0);
        Ok(())
    }
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        while self.read == self.chunk.len() && !self.last {
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

/// A line of the header, without its end; `header` has it with its end.
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
    let made = salt.extract(file_key);
    let made = made.expand(&label, hkdf::HKDF_SHA256).map_err(broken)?;
    made.fill(&mut key).map_err(broken)?;
    Ok(key)
}

/// What protects the header: HMAC-SHA256 up to and with the three hyphens.
fn mac(file_key: &[u8], header: &[u8]) -> Result<Vec<u8>> {
    let key = derived(file_key, b"", b"header")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    Ok(hmac::sign(&key, header).as_ref().to_vec())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    secret::random().map_err(Error::other)
}

fn damaged(told: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, told)
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
        let mut out = Sealed::begin(Vec::new(), &secret("a passphrase")).unwrap();
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn opened(bytes: &[u8], passphrase: &str) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        Opened::begin(bytes, &secret(passphrase))?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn what_is_sealed_opens_at_every_length_and_by_no_other_passphrase() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK] {
            let text: Vec<u8> = (0..length)
                .map(|n| u8::try_from(n % 251).unwrap())
                .collect();
            let file = sealed(&text);
            assert!(opened(&file, "a passphrase").unwrap() == text, "{length}");
        }
        let told = opened(&sealed(b"x"), "another").unwrap_err();
        assert_eq!(told.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_file_that_was_altered_or_cut_off_or_grew_does_not_open() {
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
        // Whole chunks are missing, half a chunk is, and there is one more byte.
        for length in [header + 16, header + 16 + CHUNK + TAG, file.len() - 1, 10] {
            assert!(opened(&file[..length], "a passphrase").is_err(), "{length}");
        }
        let longer = [&file[..], b"x"].concat();
        assert!(opened(&longer, "a passphrase").is_err());
    }
}
