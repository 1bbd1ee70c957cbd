//! Password hashing and password strength. Hashing is deliberately slow, so at most two hashes are computed at a time:
//! logins must not delay the heartbeats of programs.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use zxcvbn::{Score, zxcvbn};

use super::common_words;
use super::secret::{self, Secret};
use crate::error::{Doing, Error, RefusalKind, Refused, Result};

/// Memory per hash, in KiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over that memory.
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// Concurrent hashes.
const CONCURRENT_MAX: usize = 2;
/// Of these, for logins from unknown browsers: during an attack, one slot stays free for known browsers.
const CONCURRENT_UNKNOWN_MAX: usize = 1;
/// Logins from unknown browsers that may wait for that slot: a few seconds' worth of hashes.
const WAITING_MAX: usize = 50;
/// `retry_after` when the waiting queue is full, in seconds.
const QUEUE_FULL_RETRY_S: u32 = 5;
/// Minimum length of a password, in characters.
pub const LENGTH_MIN: usize = 12;
/// Maximum length of a password, in characters.
pub const LENGTH_MAX: usize = 128;
/// Minimum length of a password when each common word in it counts as one character.
const EFFECTIVE_LENGTH_MIN: usize = 8;
/// The code for a password that is easy to guess.
pub const COMMON: &str = "password_common";
/// Words about this product that attackers try.
const CONTEXT_WORDS: &[&str] = &["license", "server", "lizenz", "lizenzserver", "passwort"];

/// Hashes and verifies passwords with limited concurrency. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hasher {
    all: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// A hash without a password. Verified for unknown accounts, so that they take as long as known ones.
    dummy_hash: Arc<str>,
}

/// The result of verifying a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    /// It is wrong.
    Wrong,
    /// It is right.
    Right,
    /// It is right, but its hash has weaker parameters than today's. This is a new hash to store.
    Rehashed(String),
}

impl Hasher {
    /// Creates a hasher.
    ///
    /// # Errors
    /// When the operating system provides no random bytes.
    pub fn new() -> Result<Self> {
        // Same parameters as a real hash, but random output: no password matches it.
        let (salt, output) = (secret::random::<16>()?, secret::random::<32>()?);
        let dummy_hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params()?).doing("write a hash")?,
            salt: Some(Salt::new(&salt).doing("write a hash")?),
            hash: Some(Output::new(&output).doing("write a hash")?),
        };
        Ok(Self {
            all: Arc::new(Semaphore::new(CONCURRENT_MAX)),
            unknown: Arc::new(Semaphore::new(CONCURRENT_UNKNOWN_MAX)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            dummy_hash: dummy_hash.to_string().into(),
        })
    }

    /// The hash of `password` in PHC format.
    ///
    /// # Errors
    /// When there is not enough memory, or no random bytes.
    pub async fn hash(&self, password: Secret<String>) -> Result<String> {
        self.in_slot(move || hash(&password)).await
    }

    /// Verifies `password` against the hash `known`. `None` for an unknown account: the result is [`PasswordCheck::Wrong`]
    /// after the same time.
    ///
    /// # Errors
    /// When `known` is not a valid hash.
    pub async fn verify(
        &self,
        password: Secret<String>,
        known: Option<String>,
    ) -> Result<PasswordCheck> {
        let dummy_hash = self.dummy_hash.clone();
        self.in_slot(move || {
            let account_exists = known.is_some();
            let known = known.unwrap_or_else(|| dummy_hash.as_ref().to_owned());
            let parsed = PasswordHash::new(&known).doing("read a password hash")?;
            let verified = Argon2::default().verify_password(password.reveal().as_bytes(), &parsed);
            let right = match verified {
                Ok(()) => true,
                Err(password_hash::Error::PasswordInvalid) => false,
                Err(error) => return Err(hashing_failed(error)),
            };
            match (account_exists && right, is_current(&parsed)) {
                (false, _) => Ok(PasswordCheck::Wrong),
                (true, true) => Ok(PasswordCheck::Right),
                (true, false) => Ok(PasswordCheck::Rehashed(hash(&password)?)),
            }
        })
        .await
    }

    /// As [`Hasher::verify`], for a login from an unknown browser: it uses only the slots for those, so that an attack
    /// does not block known browsers, and it waits only if the queue is short.
    ///
    /// # Errors
    /// `rate_limited` if too many are waiting already, else as [`Hasher::verify`].
    pub async fn verify_from_unknown_browser(
        &self,
        password: Secret<String>,
        known: Option<String>,
    ) -> Result<PasswordCheck> {
        let waiting = self.waiting.clone().try_acquire_owned();
        let queue_full = Refused::new(RefusalKind::TooMany, "rate_limited")
            .with("retry_after", QUEUE_FULL_RETRY_S);
        let _waiting = waiting.ok().ok_or(queue_full)?;
        let slot = self.unknown.acquire().await;
        let _slot = slot.doing("wait for a slot for hashing")?;
        self.verify(password, known).await
    }

    async fn in_slot<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let slot = self.all.clone().acquire_owned().await;
        let slot = slot.doing("wait for a slot for hashing")?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(slot);
            result
        })
        .await
        .doing("hash a password")?
    }
}

/// The hash of `password` in PHC format, computed on this thread without a slot. For commands.
///
/// # Errors
/// When there is not enough memory, or no random bytes.
pub fn hash(password: &Secret<String>) -> Result<String> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params()?);
    let salt = secret::random::<16>()?;
    let hash: PasswordHash = argon2
        .hash_password_with_salt(password.reveal().as_bytes(), &salt)
        .map_err(hashing_failed)?;
    Ok(hash.to_string())
}

/// The error when a password could not be hashed. Running out of memory is temporary: the same request may work later.
fn hashing_failed(error: password_hash::Error) -> Error {
    match error {
        password_hash::Error::OutOfMemory => Error::Unavailable {
            reason: "not enough memory to hash a password".to_owned(),
        },
        other => Error::Internal {
            doing: "hash a password",
            source: other.into(),
        },
    }
}

fn params() -> Result<Params> {
    Params::new(MEMORY_KIB, PASSES, LANES, None).doing("set up password hashing")
}

/// Whether a hash has at least today's parameters.
fn is_current(hash: &PasswordHash) -> bool {
    let number = |name| hash.params.get_decimal(name).unwrap_or(0);
    number("m") >= MEMORY_KIB && number("t") >= PASSES
}

/// Rejects a password that is too short, too long, or easy to guess. `names` are words about the account that an
/// attacker may know, such as its name.
///
/// # Errors
/// [`Error::Invalid`] for the field `password`, [`COMMON`].
pub fn check(password: &str, names: &[&str]) -> Result<()> {
    let length = password.chars().count();
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Err(Error::invalid(
            "password",
            format!("must have {LENGTH_MIN} to {LENGTH_MAX} characters"),
        ));
    }
    // zxcvbn knows leaked passwords, words, keyboard patterns, dates, repetitions, and combinations of them. Below this
    // score it estimates less than a hundred million guesses.
    let known: Vec<&str> = names.iter().chain(CONTEXT_WORDS).copied().collect();
    let score = zxcvbn(password, &known).score();
    if score < Score::Three
        || common_words::effective_length(password, names) < EFFECTIVE_LENGTH_MIN
    {
        return Err(Refused::new(RefusalKind::Invalid, COMMON)
            .about("password")
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn only_the_right_password_is_verified() {
        block_on(async {
            let hasher = Hasher::new().unwrap();
            let secret = |text: &str| Secret::new(text.to_owned());
            let hash = hasher.hash(secret("correct horse battery")).await.unwrap();
            assert!(
                hash.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"),
                "{hash}"
            );
            let verify = |text, known| hasher.verify(secret(text), known);
            let known = Some(hash);
            assert_eq!(
                verify("correct horse battery", known.clone())
                    .await
                    .unwrap(),
                PasswordCheck::Right
            );
            assert_eq!(
                verify("correct horse", known).await.unwrap(),
                PasswordCheck::Wrong
            );
            assert_eq!(verify("", None).await.unwrap(), PasswordCheck::Wrong);
        });
    }

    #[test]
    fn a_weaker_hash_is_replaced() {
        block_on(async {
            let params = Params::new(8, 1, 1, None).unwrap();
            let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let hash: PasswordHash = weak
                .hash_password_with_salt(b"correct horse battery", &[7; 16])
                .unwrap();
            let hasher = Hasher::new().unwrap();
            let word = Secret::new("correct horse battery".to_owned());
            let verdict = hasher.verify(word, Some(hash.to_string())).await.unwrap();
            let PasswordCheck::Rehashed(new) = verdict else {
                panic!("{verdict:?}")
            };
            assert!(new.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"), "{new}");
        });
    }

    #[test]
    fn guessable_passwords_are_refused_and_no_character_classes_are_required() {
        for (password, good) in [
            ("seven green bicycles", true),
            ("correct horse battery", true),
            ("sieben grüne fahrräder", true),
            ("vkq0fz3r8wpx", true),
            ("VKQFZRWPXJMN", true),
            ("password1234", false),
            ("Passwort1234", false),
            ("123456789012", false),
            ("aaaaaaaaaaaa", false),
            ("abcabcabcabc", false),
            ("qwertzuiopü+", false),
            ("qwertyuiop12", false),
            ("iloveyou2026", false),
            ("ada.lovelace", false),
            ("ada.lovelace1", false),
            ("lizenzserver", false),
            ("lizenzserver26", false),
            ("P@ssw0rd2026", false),
            ("eleven chars", true),
            ("elevenchars", false),
            // A season and a year.
            ("Sommer2026!!", false),
            ("Sommer2026!!!!!!", false),
            ("$ommer-2026-$ommer", false),
            ("Winter2025/26", false),
            ("Frühling2026#", false),
            ("Summer2026!!", false),
            ("Montag,1.Juni2026", false),
            ("Weihnachten2025", false),
            // The name of this product.
            ("license-server1", false),
            ("LicenseServer2026!", false),
            ("Lizenzserver#1", false),
            ("server-license-99", false),
            // Everyday expressions.
            ("ich liebe dich", false),
            ("IchLiebeDich!", false),
            ("ichliebedich123", false),
            ("I love you 2026", false),
            ("Guten Morgen 123", false),
            ("gutenmorgenwelt", false),
            ("frohe weihnachten", false),
            ("dasistmeinpasswort", false),
            ("Mein Schatz 1995", false),
            ("Hallo, Welt! 123", false),
            ("passwort123456", false),
            ("Passwort!2026!", false),
            ("P4$$w0rt-2026", false),
            ("Kennwort12345", false),
            ("Willkommen2026", false),
            ("BayernMünchen1", false),
            ("correct horse battery staple", false),
            ("ada.lovelace.2026!", false),
            ("Lovelace-1815-!?", false),
            // A common word does not spoil an otherwise good password.
            ("sommer 83947261503", true),
            ("mein hund isst gerne kiesel", true),
            ("lampe giraffe zweifel", true),
            ("Sommer-x7Kq9zB", true),
            ("server room with nine clocks", true),
        ] {
            let checked = check(password, &["ada.lovelace"]);
            assert_eq!(checked.is_ok(), good, "{password}: {checked:?}");
        }
        let long = "seven green bicycles ".repeat(7);
        assert!(check(&long, &[]).is_err(), "{}", long.len());
        let long: String = long.chars().take(LENGTH_MAX).collect();
        assert!(check(&long, &[]).is_ok());
    }

    #[test]
    fn well_known_phrases_are_refused_and_unrelated_words_are_not() {
        for (password, good) in [
            // Quotations and proverbs.
            ("tobeornottobe", false),
            ("maytheforcebewithyou", false),
            ("May the Force be with you!", false),
            ("m4yth3f0rc3b3w1thy0u", false),
            ("theforcebewithyou77", false),
            ("welcometothejungle", false),
            ("iamthebestever1", false),
            ("WillkommenZuhause1", false),
            ("Willkommen-zu-Hause-1", false),
            ("mein-name-ist-hase", false),
            ("wodkaredbullbitte", false),
            ("atemlosdurchdienacht", false),
            ("Übung macht den Meister", false),
            ("DerFrüheVogel2026", false),
            ("hastalavistababy99", false),
            // Terms of license management.
            ("Lizenzverwaltung1", false),
            ("Lizenzschlüssel#7", false),
            ("LicenseManagement1", false),
            ("to bake or not seven owls", true),
            ("jungle teapot welcomes fog", true),
            ("ampel hase quittung nebel", true),
            ("wodka im regal quietscht", true),
            ("vogel früh krumme leiter", true),
            ("tobeornottobe 5826150373", true),
            ("Kx7-meister-qv92", true),
        ] {
            let checked = check(password, &["ada.lovelace"]);
            assert_eq!(checked.is_ok(), good, "{password}: {checked:?}");
        }
    }

    #[test]
    fn logins_from_unknown_browsers_leave_a_slot_free_and_their_queue_is_limited() {
        block_on(async {
            let hasher = Hasher::new().unwrap();
            let word = || Secret::new("correct horse battery".to_owned());
            let queue: Vec<_> = (0..WAITING_MAX)
                .map(|_| hasher.waiting.clone().try_acquire_owned().unwrap())
                .collect();
            let refused = hasher.verify_from_unknown_browser(word(), None).await;
            assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
            let busy = hasher.unknown.acquire().await.unwrap();
            assert_eq!(
                hasher.verify(word(), None).await.unwrap(),
                PasswordCheck::Wrong
            );
            drop((busy, queue));
            let verdict = hasher
                .verify_from_unknown_browser(word(), None)
                .await
                .unwrap();
            assert_eq!(verdict, PasswordCheck::Wrong);
        });
    }
}
