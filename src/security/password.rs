//! Passwords: hashed slowly, on purpose, and by two at a time at most, so that logins cost no program its
//! heartbeat.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use zxcvbn::{Score, zxcvbn};

use super::common_words;
use super::secret::{self, Secret};
use crate::error::{Doing, Error, Refused, Result};

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over it.
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// Hashes at once.
const AT_ONCE: usize = 2;
/// Of these, for strangers: however many guess, one turn is left for those who are known.
const AT_ONCE_STRANGERS: usize = 1;
/// Strangers who may wait for theirs: some seconds' worth.
const WAITING_MAX: usize = 50;
/// When to come back who finds them all waiting, in seconds.
const CROWD_RETRY_S: u32 = 5;
/// Fewest characters of a password.
pub const LENGTH_MIN: usize = 12;
/// Most characters of a password.
pub const LENGTH_MAX: usize = 128;
/// Fewest characters of it that are left to guess when words that everybody uses count as one.
const EFFORT_MIN: usize = 8;
/// The code of a password that guessers try early.
pub const COMMON: &str = "password_common";
/// Words that guessers take from where they are.
const SURROUNDINGS: &[&str] = &["license", "server", "lizenz", "lizenzserver", "passwort"];

/// Takes turns at hashing; cheap to clone.
#[derive(Clone, Debug)]
pub struct Hasher {
    turns: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// A hash of what nobody knows: who asks for an unknown name waits as long as for a known one.
    nobody: Arc<str>,
}

/// What a look at a password found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another one.
    Wrong,
    /// It is right.
    Right,
    /// It is right, and was hashed with less effort than is asked for today: this is its new hash.
    Rehashed(String),
}

impl Hasher {
    /// A hasher.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn new() -> Result<Self> {
        // Of the same effort, but never computed: no password has this as its hash.
        let (salt, output) = (secret::random::<16>()?, secret::random::<32>()?);
        let nobody = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params()?).doing("write a hash")?,
            salt: Some(Salt::new(&salt).doing("write a hash")?),
            hash: Some(Output::new(&output).doing("write a hash")?),
        };
        Ok(Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            strangers: Arc::new(Semaphore::new(AT_ONCE_STRANGERS)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            nobody: nobody.to_string().into(),
        })
    }

    /// The hash of `password`, in PHC form.
    ///
    /// # Errors
    /// When there is no memory or no randomness for it.
    pub async fn hash(&self, password: Secret<String>) -> Result<String> {
        self.in_turn(move || hash(&password)).await
    }

    /// Whether `password` has the hash `known`; for an unknown account, none, it takes as long to say no.
    ///
    /// # Errors
    /// When `known` is no hash.
    pub async fn verify(&self, password: Secret<String>, known: Option<String>) -> Result<Verdict> {
        let nobody = self.nobody.clone();
        self.in_turn(move || {
            let account = known.is_some();
            let known = known.unwrap_or_else(|| nobody.as_ref().to_owned());
            let parsed = PasswordHash::new(&known).doing("read a password hash")?;
            let tried = Argon2::default().verify_password(password.reveal().as_bytes(), &parsed);
            let right = match tried {
                Ok(()) => true,
                Err(password_hash::Error::PasswordInvalid) => false,
                Err(error) => return Err(unhashed(error)),
            };
            match (account && right, is_current(&parsed)) {
                (false, _) => Ok(Verdict::Wrong),
                (true, true) => Ok(Verdict::Right),
                (true, false) => Ok(Verdict::Rehashed(hash(&password)?)),
            }
        })
        .await
    }

    /// The same for somebody of whom nothing is known: guessing by many takes no turn from others, and
    /// nobody waits long.
    ///
    /// # Errors
    /// `rate_limited` when too many wait already, else as [`Hasher::verify`].
    pub async fn verify_stranger(
        &self,
        password: Secret<String>,
        known: Option<String>,
    ) -> Result<Verdict> {
        let place = self.waiting.clone().try_acquire_owned();
        let crowd = Refused::plain("rate_limited").with("retry_after", CROWD_RETRY_S);
        let _place = place.ok().ok_or(crowd)?;
        let turn = self.strangers.acquire().await;
        let _turn = turn.doing("wait for a turn at hashing")?;
        self.verify(password, known).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.doing("wait for a turn at hashing")?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .doing("hash a password")?
    }
}

/// The hash of `password`, in PHC form, at once: for a command.
///
/// # Errors
/// When there is no memory or no randomness for it.
pub fn hash(password: &Secret<String>) -> Result<String> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params()?);
    let salt = secret::random::<16>()?;
    let hash: PasswordHash = argon2
        .hash_password_with_salt(password.reveal().as_bytes(), &salt)
        .map_err(unhashed)?;
    Ok(hash.to_string())
}

/// Nothing was found out about the password: without memory the same request may work later.
fn unhashed(error: password_hash::Error) -> Error {
    match error {
        password_hash::Error::OutOfMemory => Error::Unavailable {
            reason: "there is no memory to hash a password".to_owned(),
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

/// Whether a hash was made with the effort of today.
fn is_current(hash: &PasswordHash) -> bool {
    let number = |name| hash.params.get_decimal(name).unwrap_or(0);
    number("m") >= MEMORY_KIB && number("t") >= PASSES
}

/// Refuses a password that is too short, too long, or that guessers try early; `names` are words about the
/// account that they know.
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
    // Lists of leaked passwords and words, rows of keys, dates, repetitions, and what they are joined to:
    // below this score all of them are tried within a hundred million guesses.
    let known: Vec<&str> = names.iter().chain(SURROUNDINGS).copied().collect();
    let score = zxcvbn(password, &known).score();
    if score < Score::Three || common_words::effort(password, names) < EFFORT_MIN {
        return Err(Refused::plain(COMMON).with("field", "password").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(work)
    }

    #[test]
    fn the_right_password_is_known_again_and_no_other() {
        in_a_runtime(async {
            let hasher = Hasher::new().unwrap();
            let word = |text: &str| Secret::new(text.to_owned());
            let hash = hasher.hash(word("correct horse battery")).await.unwrap();
            assert!(
                hash.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"),
                "{hash}"
            );
            let ask = |text, known| hasher.verify(word(text), known);
            let known = Some(hash);
            assert_eq!(
                ask("correct horse battery", known.clone()).await.unwrap(),
                Verdict::Right
            );
            assert_eq!(ask("correct horse", known).await.unwrap(), Verdict::Wrong);
            assert_eq!(ask("", None).await.unwrap(), Verdict::Wrong);
        });
    }

    #[test]
    fn a_weaker_hash_is_replaced() {
        in_a_runtime(async {
            let params = Params::new(8, 1, 1, None).unwrap();
            let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let hash: PasswordHash = weak
                .hash_password_with_salt(b"correct horse battery", &[7; 16])
                .unwrap();
            let hasher = Hasher::new().unwrap();
            let word = Secret::new("correct horse battery".to_owned());
            let told = hasher.verify(word, Some(hash.to_string())).await.unwrap();
            let Verdict::Rehashed(new) = told else {
                panic!("{told:?}")
            };
            assert!(new.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"), "{new}");
        });
    }

    #[test]
    fn what_guessers_try_early_is_refused_and_no_form_is_demanded() {
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
            // What this is called.
            ("license-server1", false),
            ("LicenseServer2026!", false),
            ("Lizenzserver#1", false),
            ("server-license-99", false),
            // What people say.
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
            // A common word takes nothing from what is good beside it.
            ("sommer 83947261503", true),
            ("mein hund isst gerne kiesel", true),
            ("lampe giraffe zweifel", true),
            ("Sommer-x7Kq9zB", true),
            ("server room with nine clocks", true),
        ] {
            let told = check(password, &["ada.lovelace"]);
            assert_eq!(told.is_ok(), good, "{password}: {told:?}");
        }
        let long = "seven green bicycles ".repeat(7);
        assert!(check(&long, &[]).is_err(), "{}", long.len());
        let long: String = long.chars().take(LENGTH_MAX).collect();
        assert!(check(&long, &[]).is_ok());
    }

    #[test]
    fn what_people_quote_is_refused_and_unrelated_words_are_not() {
        for (password, good) in [
            // What people quote.
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
            // What the field calls things.
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
            let told = check(password, &["ada.lovelace"]);
            assert_eq!(told.is_ok(), good, "{password}: {told:?}");
        }
    }

    #[test]
    fn a_crowd_of_strangers_leaves_a_turn_to_others_and_does_not_wait_for_ever() {
        in_a_runtime(async {
            let hasher = Hasher::new().unwrap();
            let word = || Secret::new("correct horse battery".to_owned());
            let crowd: Vec<_> = (0..WAITING_MAX)
                .map(|_| hasher.waiting.clone().try_acquire_owned().unwrap())
                .collect();
            let told = hasher.verify_stranger(word(), None).await;
            assert!(matches!(told, Err(Error::Refused(_))), "{told:?}");
            let busy = hasher.strangers.acquire().await.unwrap();
            assert_eq!(hasher.verify(word(), None).await.unwrap(), Verdict::Wrong);
            drop((busy, crowd));
            let told = hasher.verify_stranger(word(), None).await.unwrap();
            assert_eq!(told, Verdict::Wrong);
        });
    }
}
